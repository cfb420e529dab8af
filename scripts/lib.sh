# SPDX-License-Identifier: MIT OR Apache-2.0
# Shared by the scripts beside it; sourced, never run. Everything it says goes to standard error, so that a script's
# standard output is its result alone.
# shellcheck shell=bash disable=SC2034

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd -P)
export root
# Debian's own python3, meson and compilers come before whatever else is on PATH, and bpftool is in sbin.
PATH=/usr/bin:/bin:/usr/sbin:/sbin:$PATH
unset CDPATH PYTHONHOME PYTHONPATH
export PATH LC_ALL=C.UTF-8

say() { printf 'boxo: %s\n' "$*" >&2; }
die() { say "$*"; exit 1; }

# step WHAT COMMAND...: runs a program with its output in a log. Says that it is alive if it takes over a second, how
# long it took, and the end of the log if it fails.
step() {
  local what=$1 status=0 log printer begin=$SECONDS
  shift
  log=$(mktemp "${TMPDIR:-/tmp}/boxo-step.XXXXXX")
  step_progress "$what" "$log" "$$" &
  printer=$!
  # shellcheck disable=SC2064
  trap "kill $printer 2>/dev/null || true; rm -f '${log//\'/\'\\\'\'}'" EXIT
  "$@" >"$log" 2>&1 </dev/null || status=$?
  kill "$printer" 2>/dev/null || true
  wait "$printer" 2>/dev/null || true
  trap - EXIT
  [ ! -t 2 ] || printf '\r\033[K' >&2
  if [ "$status" -ne 0 ]; then
    tail -n 40 "$log" >&2
    rm -f "$log"
    say "$what: failed (exit $status) after $((SECONDS - begin)) s; what it said last is above"
    return "$status"
  fi
  rm -f "$log"
  [ $((SECONDS - begin)) -lt 2 ] || say "$what: done in $((SECONDS - begin)) s"
}

step_progress() {  # WHAT LOG PID
  local what=$1 log=$2 pid=$3 begin=$SECONDS last width pause
  # A pause without a `sleep`, which would outlive this printer and hold standard error open.
  exec {pause}<> <(:)
  read -rt 1 -u "$pause" || true
  if [ ! -t 2 ]; then
    say "$what ..."
    while read -rt 20 -u "$pause" || kill -0 "$pid" 2>/dev/null; do say "$what: $((SECONDS - begin)) s so far"; done
    return
  fi
  width=$(tput cols 2>/dev/null || echo 80)
  while kill -0 "$pid" 2>/dev/null; do
    last=$(tail -c 400 "$log" 2>/dev/null | tr -d '\r\033' | tail -n 1)
    last="boxo: $what, $((SECONDS - begin)) s: $last"
    printf '\r\033[K%s' "${last:0:$((width - 1))}" >&2
    read -rt 0.5 -u "$pause" || true
  done
}

is_root() { [ "$(id -u)" -eq 0 ]; }

# ---- Debian packages -------------------------------------------------------------------------------------------

build_packages=(g++ meson ninja-build pkg-config clang llvm bpftool libbpf-dev libproc2-dev prometheus-cpp-dev
  libcli11-dev libmicrohttpd-dev doctest-dev libmnl-dev libcap-ng-dev python3 git)
test_packages=(python3-pytest python3-prometheus-client python3-venv socat netcat-openbsd make clang-tidy clang-format
  libclang-rt-dev shellcheck iproute2 runc curl strace faketime util-linux mount procps libcap2-bin e2fsprogs xfsprogs btrfs-progs binutils groff mandoc systemd qemu-system-x86 busybox-static cpio)
# Node.js, for a public client of the event socket, only where there is none of another source.
type -P node npm >/dev/null || test_packages+=(nodejs npm libnode-dev)
go_packages=(git ca-certificates gcc libc6-dev)

missing_packages() {  # NAME...: those that are not installed, one a line
  local have
  # dpkg-query fails if it does not know one of the names, after it told of the others.
  have=$({ dpkg-query -W -f='${db:Status-Status} ${Package}\n' "$@" 2>/dev/null || true; } | sed -n 's/^installed //p')
  printf '%s\n' "$@" | grep -vxF -f <(printf '%s\n' "$have") || true
}

apt_update() {
  [ -z "${apt_updated:-}" ] || return 0
  step 'reading the package lists (apt-get update)' apt-get -q update
  apt_updated=1
}

has_candidate() { [[ $(apt-cache policy "$1" 2>/dev/null) =~ Candidate:\ [^\(] ]]; }

need_packages() {  # NAME...: installs what is missing
  type -P dpkg-query apt-get >/dev/null || die 'this needs Debian 12 or a later Debian or Ubuntu (no apt-get here)'
  local missing=() unknown=() name
  mapfile -t missing < <(missing_packages "$@")
  [ ${#missing[@]} -gt 0 ] || return 0
  is_root || die "packages are missing; as root run: apt-get install --no-install-recommends ${missing[*]}"
  apt_update
  for name in "${missing[@]}"; do
    has_candidate "$name" || unknown+=("$name")
  done
  [ ${#unknown[@]} -eq 0 ] ||
    die "$(os_name) has no package ${unknown[*]}; Debian 12, or a later Debian or Ubuntu, is needed"
  say "installing ${#missing[@]} packages: ${missing[*]}"
  step "installing packages" env DEBIAN_FRONTEND=noninteractive NEEDRESTART_MODE=l apt-get -y -q \
    -o DPkg::Lock::Timeout=300 -o Dpkg::Use-Pty=0 install --no-install-recommends "${missing[@]}"
}

os_name() { (. /etc/os-release 2>/dev/null && echo "${PRETTY_NAME:-this system}") || echo 'this system'; }

# promtool is taken out of Debian's package and not installed with it: installing would start a Prometheus server.
need_promtool() {
  PATH=$PATH:$root/.cache/bin
  ! command -v promtool >/dev/null || return 0
  local work=$root/.cache/promtool.tmp
  rm -rf "$work" && mkdir -p "$work" "$root/.cache/bin"
  has_candidate prometheus || ! is_root || apt_update
  say "fetching Debian's package prometheus to take promtool out of it (it is not installed, no server is started)"
  (cd "$work" && step 'fetching promtool' apt-get -q -o APT::Sandbox::User= download prometheus) ||
    die 'no promtool; as root run: apt-get install prometheus (and stop the server that this starts)'
  dpkg-deb --fsys-tarfile "$work"/prometheus_*.deb | tar -x -C "$work" ./usr/bin/promtool
  mv "$work/usr/bin/promtool" "$root/.cache/bin/promtool"
  rm -rf "$work"
}

# ---- the program -----------------------------------------------------------------------------------------------

agent=$root/build/agent/boxo-agent
export agent

# meson_build DIR [SETUP-OPTION...] [-- NINJA-TARGET...]: sets DIR up if that was not done, then builds in it.
meson_build() {
  local dir=$1 options=()
  shift
  while [ $# -gt 0 ] && [ "$1" != -- ]; do options+=("$1"); shift; done
  [ $# -eq 0 ] || shift
  if [ ! -e "$root/$dir/build.ninja" ]; then
    rm -rf "${root:?}/$dir"
    step "configuring $dir" meson setup "${options[@]}" "$root/$dir" "$root"
  fi
  step "building $dir" ninja -C "$root/$dir" "$@"
}

build_agent() {
  need_packages "${build_packages[@]}"
  meson_build build -- agent/boxo-agent
}

# ---- Go and kubo -----------------------------------------------------------------------------------------------

# find_go: sets `go` to a Go of at least 1.21 (the first that can fetch the toolchain that a go.mod names).
find_go() {
  local candidate version
  local candidates=("$(type -P go || true)" /usr/local/go/bin/go)
  mapfile -t -O 2 candidates < <(printf '%s\n' /usr/lib/go-*/bin/go | sort -Vr)
  for candidate in "${candidates[@]}"; do
    [ -x "$candidate" ] || continue
    version=$(cd / && GOTOOLCHAIN=local "$candidate" env GOVERSION 2>/dev/null) || continue
    if [[ $version =~ ^go1\.([0-9]+) ]] && [ "${BASH_REMATCH[1]}" -ge 21 ]; then
      go=$candidate
      return 0
    fi
  done
  return 1
}

newest_go_package() { apt-cache --names-only search '^golang-1\.[0-9]+-go$' | awk '{print $1}' | sort -V | tail -n 1; }

need_go() {
  # The machine's Go may be told to stay at its version; these modules name theirs, and Go fetches it by itself.
  export GOTOOLCHAIN=${GOTOOLCHAIN:-auto}
  ! find_go || return 0
  need_packages "${go_packages[@]}"
  local package sources=/etc/apt/sources.list.d/boxo-agent-backports.sources codename mirror
  is_root || die 'Go of at least 1.21 is missing; as root run: scripts/run --demo, or install it from go.dev'
  package=$(newest_go_package)
  if [[ ! $package =~ ^golang-1\.([0-9]+) ]] || [ "${BASH_REMATCH[1]}" -lt 21 ]; then
    codename=$(. /etc/os-release && echo "${VERSION_CODENAME:-}")
    [ "$codename" = bookworm ] || die "$(os_name) has no Go of at least 1.21; install it from go.dev"
    # shellcheck disable=SC2016  # apt's own variable
    mirror=$(apt-get indextargets --format '$(SITE)' 'Created-By: Packages' 'Origin: Debian' 'Codename: bookworm' \
      2>/dev/null | head -n 1)
    say "adding Debian's backports to $sources (for Go; nothing else is taken from there)"
    cat >"$sources" <<SOURCES
Types: deb
URIs: ${mirror:-http://deb.debian.org/debian}
Suites: bookworm-backports
Components: main
Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg
SOURCES
    apt_updated='' apt_update
    package=$(newest_go_package)
  fi
  need_packages "$package"
  find_go || die "no Go of at least 1.21 although $package is installed"
}

# kubo's version has one place: the go.mod that the ordinary Go client builds it from.
kubo_version() { sed -nE 's,^(require)?[[:space:]]*github.com/ipfs/kubo (v[^ ]+).*,\2,p' "$root/clients/go/kubo/go.mod"; }

# need_kubo: sets `kubo` to the ipfs program, which it builds the first time, and `kubo_events` to the one with this
# project's events built in, which it builds again when clients/go has changed.
need_kubo() {
  local version dir sum
  version=$(kubo_version)
  [ -n "$version" ] || die 'clients/go/kubo/go.mod names no version of github.com/ipfs/kubo'
  dir=$root/.cache/kubo-$version
  kubo=$dir/ipfs
  kubo_events=$dir/events/ipfs
  [ -x "$kubo" ] || build_kubo "$kubo" github.com/ipfs/kubo/cmd/ipfs
  # By content: a checkout gives every file a new time.
  sum=$(clients_sum)
  if [ ! -x "$kubo_events" ] || [ "$sum" != "$(cat "$kubo_events.sum" 2>/dev/null)" ]; then
    build_kubo "$kubo_events" ./cmd/ipfs
    echo "$sum" >"$kubo_events.sum"
  fi
}

# clients_sum: one sum over what programs are built from in clients/go.
clients_sum() {
  (cd "$root/clients/go" && find . -type f ! -name '*_test.go' ! -name '*.md' -print0 | sort -z | xargs -0 sha256sum | sha256sum)
}

build_kubo() {  # PROGRAM PACKAGE
  need_packages "${go_packages[@]}"
  need_go
  mkdir -p "$(dirname "$1")"
  # -trimpath and no stripping, as kubo's own releases are built. Several scripts may come here at once.
  (cd "$root/clients/go/kubo" && exec {lock}>"$root/.cache/kubo.lock" && flock "$lock" &&
    step "building kubo $(kubo_version) ($2) with Go, a few minutes the first time" "$go" build -trimpath -o "$1.new" "$2")
  mv "$1.new" "$1"
}
