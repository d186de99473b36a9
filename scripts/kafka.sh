# shellcheck shell=bash
# Builds the image of Apache Kafka where no registry can be reached: its release from Maven artifacts, on a Java runtime
# with no more modules than Kafka uses, and the few libraries that both need. Installs the tools that the build lacks.
#
# To be sourced by brokers.sh.

# The release of Kafka, and the official tag that it is built under.
kafka_release=4.3.1
# The binding of Kafka's log to a logger, in the version that the release brings along.
kafka_log4j=2.25.4
# The modules of Java that Kafka uses.
kafka_modules=java.base,java.desktop,java.logging,java.management,java.naming,java.security.jgss,java.security.sasl
kafka_modules+=,java.sql,java.xml,jdk.crypto.ec,jdk.management,jdk.unsupported

# has_jdk: succeeds if there are Maven and a JDK of 17 or newer, with the tool that makes a runtime.
has_jdk() {
  local version
  command -v jlink >/dev/null && command -v mvn >/dev/null || return 1
  version=$(jlink --version 2>/dev/null) && ((${version%%.*} >= 17))
}

# fetch_kafka FOLDER: downloads Kafka's jars, by a Maven project that depends on them.
fetch_kafka() {
  local folder=$1 pom=$1/pom.xml dependency
  {
    say '<project xmlns="http://maven.apache.org/POM/4.0.0"><modelVersion>4.0.0</modelVersion>' \
      '<groupId>eventbus</groupId><artifactId>kafka-image</artifactId><version>1</version><dependencies>'
    for dependency in "org.apache.kafka kafka_2.13 $kafka_release" "org.apache.kafka kafka-tools $kafka_release" \
      "org.apache.logging.log4j log4j-slf4j-impl $kafka_log4j"; do
      read -r group artifact version <<<"$dependency"
      say "<dependency><groupId>$group</groupId><artifactId>$artifact</artifactId><version>$version</version></dependency>"
    done
    say '</dependencies></project>'
  } >"$pom"
  mvn --batch-mode --quiet --file "$pom" dependency:copy-dependencies -DincludeScope=runtime \
    -DoutputDirectory="$folder/root/opt/kafka"
}

# copy_libraries ROOT PROGRAM...: copies the libraries that the programs link to the same paths under ROOT.
copy_libraries() {
  local root=$1 library
  shift
  while read -r library; do
    mkdir -p "$root/${library%/*}" && cp --dereference "$library" "$root/$library" || return 1
  done < <(for program in "$@"; do ldd "$program"; done | grep -oE '/[^ ]+' | grep -v "^$root" | sort -u)
}

# build_kafka FOLDER: makes the whole tree of the image, in FOLDER/root.
build_kafka() {
  local folder=$1 root=$1/root jre=$1/root/opt/jre
  mkdir -p "$root"/{tmp,bin,etc,opt,var/lib/kafka/data} && fetch_kafka "$folder" &&
    jlink --add-modules "$kafka_modules" --strip-java-debug-attributes --no-header-files --no-man-pages --output "$jre" &&
    cp "$(command -v bash)" "$root/bin/bash" && cp scripts/kafka-entrypoint "$root/entrypoint" &&
    # Java unpacks native compression when it is used, which needs the C++ library.
    copy_libraries "$root" "$jre/bin/java" "$jre/lib/server/libjvm.so" "$jre/lib/libzip.so" "$(command -v bash)" &&
    # Classes that are parsed already: a quarter of the time that the start takes.
    "$jre/bin/java" -Xshare:dump
}

# Ensures the image of Kafka, under the official tag.
require_kafka_image() {
  local provision=$1 tag=apache/kafka:$kafka_release unfinished=eventbus-unfinished/kafka:$kafka_release-$$
  local folder log=${broker_work:?}/kafka.log started=$SECONDS
  has_image "$tag" && return
  [[ $provision == yes ]] || fail 2 "the image $tag is missing (--provision pulls or builds it)"
  if timeout "${pull_seconds:?}" docker pull --quiet "$tag" >"$broker_work/pull.log" 2>&1; then
    say "brokers: pulled $tag"
    return
  fi
  if ! has_jdk; then
    say "brokers: installing a JDK and Maven"
    apt_install default-jdk-headless maven || true
    has_jdk || fail 2 "$tag cannot be pulled ($(tail -n 1 "$broker_work/pull.log")), and Maven with a JDK of 17 or newer" \
      "could not be installed (apt-get as root; see $broker_work/apt.log)"
  fi
  say "brokers: building $tag from its Maven artifacts"
  folder=$(mktemp -d "$broker_work/kafka.XXXXXX")
  if build_kafka "$folder" >"$log" 2>&1 &&
    tar -C "$folder/root" -c . | docker import --change 'ENTRYPOINT ["/entrypoint"]' --change 'EXPOSE 9092' \
      - "$unfinished" >>"$log" && docker tag "$unfinished" "$tag" && docker rmi "$unfinished" >/dev/null; then
    say "brokers: built $tag in $((SECONDS - started)) s"
    rm -rf "$folder"
    return
  fi
  rm -rf "$folder"
  fail 2 "$tag can be had neither from a registry ($(tail -n 1 "$broker_work/pull.log")) nor built (see $log)"
}
