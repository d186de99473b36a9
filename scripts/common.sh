# shellcheck shell=bash
# Functions that the scripts and .ci/run share: the versions of the tools, their place, and the installation of a
# missing one. To be sourced from bash with `set -euo pipefail`, at the top of the work tree.
#
# Tools go to target/tools, in a folder per version: nothing outside the clone changes, a user's own version of a tool
# is never replaced, and deleting target/ deletes them too. EVENTBUS_TOOLS names a folder that outlives the clone. A
# tool on the PATH is used instead if it has exactly the version wanted.

# The cargo subcommands and the versions that are used.
declare -rA tool_versions=(
  [cargo-deny]=0.20.2
  [cargo-machete]=0.9.2
)

target_dir=${CARGO_TARGET_DIR:-$PWD/target}
tools_dir=${EVENTBUS_TOOLS:-$target_dir/tools}

# Prints each argument on a line of its own.
say() { printf '%s\n' "$@"; }

# fail CODE MESSAGE...: prints the message on stderr and exits.
fail() {
  local code=$1
  shift
  printf '%s: %s\n' "${0##*/}" "$*" >&2
  exit "$code"
}

require_cargo() {
  command -v cargo >/dev/null || fail 2 "cargo is missing: install Rust with rustup (the toolchain is named in rust-toolchain.toml)"
}

# Prints the path of a tool of the version wanted, or fails.
find_tool() {
  local name=$1 version=${tool_versions[$1]}
  local installed=$tools_dir/$name-$version/bin/$name
  if [[ -x $installed ]]; then
    say "$installed"
  elif [[ $("$name" --version 2>/dev/null) =~ (^|[[:space:]])"$version"([[:space:]]|$) ]]; then
    command -v "$name"
  else
    return 1
  fi
}

# Installs a tool of the version wanted, from source, unless it is there already.
install_tool() {
  local name=$1 version=${tool_versions[$1]} started=$SECONDS
  find_tool "$name" >/dev/null && return
  say "installing $name $version into $tools_dir"
  # The build is light: these programs run for seconds, and a fresh clone waits for their build. They have one build
  # folder, as they share dependencies.
  CARGO_PROFILE_RELEASE_OPT_LEVEL=1 CARGO_PROFILE_RELEASE_LTO=off CARGO_PROFILE_RELEASE_CODEGEN_UNITS=16 \
    CARGO_PROFILE_RELEASE_DEBUG=false CARGO_TARGET_DIR=$tools_dir/build \
    cargo install --quiet --locked --version "=$version" --root "$tools_dir/$name-$version" "$name" || return 1
  say "installed $name in $((SECONDS - started)) s"
}
