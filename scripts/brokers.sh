# shellcheck shell=bash
# Provides the tests with brokers. A Docker engine that answers is used as it is; with --provision a missing one is
# installed and started, and the brokers' images are pulled, or built where no registry can be reached.
#
# Invariants:
#   - an engine that answered before is never configured, restarted or stopped; one that was started here is left
#     running for the next run
#   - an image carries its tag only when it is whole: it is made under a temporary name and tagged last
#   - a missing part is reported by name, with the means to provide it
#
# To be sourced after common.sh.

# shellcheck source=scripts/kafka.sh
. scripts/kafka.sh

# The tags that the tests use, and the release that is built under each if the official image cannot be pulled.
declare -rA nats_releases=([2.15]=2.15.1 [2.10]=2.10.29)
# The Debian releases with a package of the same release line, for machines without Go.
declare -rA nats_suites=([2.15]=forky [2.10]=trixie)

broker_work=${target_dir:?}/brokers

# Seconds that a pull may take: an unreachable registry must not hold up the tests.
pull_seconds=${EVENTBUS_PULL_SECONDS:-20}

engine_answers() { timeout 15 docker info >/dev/null 2>&1; }

# apt_install NAME...: installs packages, after an update, as the package lists may be missing or too old.
apt_install() {
  command -v apt-get >/dev/null || return 1
  ((EUID == 0)) || return 1
  {
    apt-get update || true
    DEBIAN_FRONTEND=noninteractive apt-get install --yes --no-install-recommends "$@"
  } >"$broker_work/apt.log" 2>&1 </dev/null
}

# remove_stale_pid_file FILE NAME: removes a pid file whose process is gone, or is another program by now.
remove_stale_pid_file() {
  local file=$1 name=$2 pid
  [[ -f $file ]] || return 0
  pid=$(<"$file")
  [[ $pid =~ ^[0-9]+$ && $(cat "/proc/$pid/comm" 2>/dev/null) == "$name" ]] && return 0
  say "removing $file: left by a $name that is gone"
  rm -f "$file"
}

# Starts dockerd in its own session, so that it outlives this script, and waits until it answers.
start_engine() {
  local log=$broker_work/dockerd.log tries=0 engine=""
  remove_stale_pid_file /var/run/docker.pid dockerd
  remove_stale_pid_file /var/run/docker/containerd/containerd.pid containerd
  # A dockerd that is starting already has its pid file by now.
  if [[ ! -f /var/run/docker.pid ]]; then
    say "starting dockerd (log: $log)"
    setsid dockerd >"$log" 2>&1 </dev/null &
    engine=$!
    disown
  fi
  until engine_answers; do
    if ((++tries > 60)) || { [[ -n $engine ]] && ! kill -0 "$engine" 2>/dev/null; }; then
      say "the engine does not answer; the end of its log:" "$(tail -n 5 "$log" 2>/dev/null)" >&2
      return 1
    fi
    sleep 1
  done
}

# Ensures an engine that answers. Installs and starts one if needed and allowed.
require_engine() {
  local provision=$1
  if command -v docker >/dev/null && engine_answers; then
    say "brokers: the Docker engine that answers is used as it is"
    return
  fi
  [[ $provision == yes ]] ||
    fail 2 "no Docker engine answers (--provision installs and starts one; --no-brokers leaves its tests out)"
  if ! command -v dockerd >/dev/null || ! command -v docker >/dev/null; then
    say "brokers: installing docker.io"
    apt_install docker.io iptables ||
      fail 2 "no Docker engine answers and docker.io could not be installed (apt-get as root; see $broker_work/apt.log)"
  fi
  ((EUID == 0)) || fail 2 "no Docker engine answers, and only root can start one"
  start_engine || fail 2 "dockerd was started but does not answer (see $broker_work/dockerd.log)"
}

has_image() { docker image inspect "$1" >/dev/null 2>&1; }

# import_image TAG FOLDER: makes an image of a folder with /nats-server and its files. As with the official image,
# arguments go to the server. It is imported under a temporary name, and tagged once it is whole.
import_image() {
  local tag=$1 folder=$2 id
  id=$(tar -C "$folder" -c . | docker import --change 'ENTRYPOINT ["/nats-server"]' \
    --change 'EXPOSE 4222 8222' - "eventbus-unfinished/nats:$1-$$") || return 1
  docker tag "$id" "nats:$tag" && docker rmi "eventbus-unfinished/nats:$1-$$" >/dev/null
}

# build_by_go TAG FOLDER: builds a static binary from the Go module. Its newest versions may need a newer Go than is
# installed; the go command then fetches that Go as a module.
build_by_go() {
  local version=${nats_releases[$1]} folder=$2
  command -v go >/dev/null || return 1
  say "brokers: building nats-server $version from its Go module"
  CGO_ENABLED=0 GOBIN=$folder GOFLAGS=-trimpath go install -ldflags '-s -w' \
    "github.com/nats-io/nats-server/v2@v$version" >"$broker_work/nats-$1.log" 2>&1
}

# take_from_debian TAG FOLDER: copies the binary of Debian's package, with the libraries that it links. Package lists
# and cache are kept apart, so that the machine's own sources stay as they are.
take_from_debian() {
  local suite=${nats_suites[$1]} folder=$2 apt=$broker_work/apt-$1 mirror library
  command -v apt-get >/dev/null && command -v dpkg-deb >/dev/null || return 1
  # shellcheck disable=SC2016 # apt's own placeholder
  mirror=$(apt-get indextargets --format '$(SITE)' 2>/dev/null | grep -m 1 '/debian/*$') || return 1
  say "brokers: taking nats-server out of Debian $suite"
  mkdir -p "$apt/lists/partial" "$apt/cache/archives/partial" "$apt/parts"
  say "deb [trusted=yes] $mirror $suite main" >"$apt/sources.list"
  local options=(-o "Dir::Etc::sourcelist=$apt/sources.list" -o "Dir::Etc::sourceparts=$apt/parts"
    -o "Dir::State::lists=$apt/lists" -o "Dir::Cache=$apt/cache" -o Acquire::Check-Valid-Until=false
    -o APT::Sandbox::User=root)
  {
    apt-get "${options[@]}" update &&
      (cd "$apt" && rm -f ./*.deb && apt-get "${options[@]}" download nats-server &&
        rm -rf tree && dpkg-deb -x nats-server_*.deb tree)
  } >"$broker_work/nats-$1.log" 2>&1 || return 1
  cp "$(find "$apt/tree" -type f -name nats-server -perm -100 | head -n 1)" "$folder/nats-server" || return 1
  while read -r library; do
    mkdir -p "$folder/$(dirname "$library")" && cp -L "$library" "$folder/$library"
  done < <(ldd "$folder/nats-server" 2>/dev/null | grep -oE '/[^ ]+' || true)
}

# Ensures the image of one release line of nats-server, under the official tag.
require_nats_image() {
  local tag=$1 provision=$2 folder started=$SECONDS
  has_image "nats:$tag" && return
  [[ $provision == yes ]] || fail 2 "the image nats:$tag is missing (--provision pulls or builds it)"
  if timeout "$pull_seconds" docker pull --quiet "nats:$tag" >"$broker_work/pull.log" 2>&1; then
    say "brokers: pulled nats:$tag"
    return
  fi
  folder=$(mktemp -d "$broker_work/nats-$tag.XXXXXX")
  # The server needs a folder for temporary files.
  mkdir -p "$folder/tmp"
  if { build_by_go "$tag" "$folder" || take_from_debian "$tag" "$folder"; } && import_image "$tag" "$folder"; then
    say "brokers: built nats:$tag in $((SECONDS - started)) s"
    rm -rf "$folder"
    return
  fi
  rm -rf "$folder"
  fail 2 "nats:$tag can be had neither from a registry ($(tail -n 1 "$broker_work/pull.log")) nor built" \
    "(Go, or Debian's packages as root; see $broker_work/nats-$tag.log)"
}

# sweep_brokers OWNER: removes the containers of the given owner, and those of test runs that are over: their owner, a
# process and its start time, is gone. An empty OWNER is nobody.
sweep_brokers() {
  local own=$1 id owner
  while read -r id owner; do
    [[ -n $id ]] || continue
    if [[ $owner == "$own" || $(process_identity "${owner%%:*}") != "$owner" ]]; then
      docker rm --force --volumes "$id" >/dev/null 2>&1 || true
    fi
  done < <(docker ps --all --filter label=eventbus.owner --format '{{.ID}} {{.Label "eventbus.owner"}}' 2>/dev/null)
}

# process_identity PID: prints the process and its start time, which together no later process has; nothing if gone.
process_identity() {
  local stat
  stat=$(cat "/proc/$1/stat" 2>/dev/null) || return 0
  # The name may hold spaces and parentheses; the other fields follow the last parenthesis.
  read -ra stat <<<"${stat##*) }"
  say "$1:${stat[19]}"
}

# Ensures the tools and headers that librdkafka is built with from source, before anything is compiled.
require_build_tools() {
  local provision=$1 missing=()
  mkdir -p "$broker_work"
  command -v cc >/dev/null && command -v c++ >/dev/null && command -v make >/dev/null || missing+=(build-essential)
  command -v pkg-config >/dev/null || missing+=(pkg-config)
  # OpenSSL's headers are found through pkg-config only.
  pkg-config --exists openssl 2>/dev/null || missing+=(libssl-dev)
  ((${#missing[@]} > 0)) || return 0
  if [[ $provision == yes ]]; then
    say "installing ${missing[*]}: librdkafka is built from source"
    apt_install "${missing[@]}" && return
  fi
  fail 2 "librdkafka is built from source and needs ${missing[*]} (Debian's names; --provision installs them as root)"
}

# Copies the server's program out of the newest image, for tests that start a server with their own configuration.
take_nats_program() {
  local newest container program=$broker_work/nats-server
  newest=$(printf '%s\n' "${!nats_releases[@]}" | sort --version-sort | tail --lines 1)
  container=$(docker create "nats:$newest")
  docker cp --quiet "$container:/nats-server" "$program" || fail 2 "nats:$newest holds no program /nats-server"
  docker rm "$container" >/dev/null
  EVENTBUS_TEST_NATS_SERVER=$program
  export EVENTBUS_TEST_NATS_SERVER
}

# Ensures that the brokers can be started, unless the environment names running ones.
require_brokers() {
  local provision=$1 tag
  mkdir -p "$broker_work"
  for tag in NATS KAFKA; do
    local url=EVENTBUS_TEST_${tag}_URL
    [[ -z ${!url:-} ]] || say "brokers: the server that $url names; cases that must kill it are skipped"
  done
  [[ -z ${EVENTBUS_TEST_NATS_URL:-} || -z ${EVENTBUS_TEST_KAFKA_URL:-} ]] || return 0
  require_engine "$provision"
  if [[ -z ${EVENTBUS_TEST_NATS_URL:-} ]]; then
    for tag in "${!nats_releases[@]}"; do
      require_nats_image "$tag" "$provision"
    done
    take_nats_program
  fi
  [[ -n ${EVENTBUS_TEST_KAFKA_URL:-} ]] || require_kafka_image "$provision"
  sweep_brokers ""
}
