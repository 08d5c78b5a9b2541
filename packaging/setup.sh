#!/bin/bash
# Makes a Debian 12 machine ready to build, test and demonstrate Surrogate.
#
# usage: packaging/setup.sh            install what is missing (root)
#        packaging/setup.sh --check    only say what is missing; exit 1 if anything is
#
# Each tool is looked for before its package is installed, so that a machine which has everything
# downloads nothing and is done in a blink. Packages come without their recommendations, in the
# variants that bring no service, and while they are installed a policy-rc.d refuses to start any
# service; a policy-rc.d that was there before is put back. Avahi has no such variant: if it is
# installed here, its service is disabled. The Rust toolchain comes from rustup.
set -euo pipefail

readonly RUST_NEEDED=1.95
export PATH="${CARGO_HOME:-$HOME/.cargo}/bin:$PATH:/usr/sbin:/sbin"

# What must be there (a command, or a file by its path; * may stand in a path), and its package. arping by its
# path: Debian has another program of that name, with other options, in /usr/sbin.
needs() {
    cat <<'TABLE'
cc                      gcc
c++                     g++
/usr/include/stdio.h    libc6-dev
make                    make
pkg-config              pkg-config
/usr/lib/*/pkgconfig/libvirt.pc  libvirt-dev
curl                    curl
/etc/ssl/certs/ca-certificates.crt  ca-certificates
git                     git
ip                      iproute2
ss                      iproute2
ethtool                 ethtool
ps                      procps
ping                    iputils-ping
/usr/bin/arping         iputils-arping
fping                   fping
ndisc6                  ndisc6
nmap                    nmap
nping                   nmap
hping3                  hping3
socat                   socat
busybox                 busybox
avahi-daemon            avahi-daemon
avahi-browse            avahi-utils
dbus-daemon             dbus-daemon
nbtscan                 nbtscan
ssh                     openssh-client
dropbear                dropbear-bin
dnsmasq                 dnsmasq-base
dhclient                isc-dhcp-client
perl                    perl-base
cpio                    cpio
lz4                     lz4
libvirtd                libvirt-daemon
virsh                   libvirt-clients
/usr/lib/*/libvirt/connection-driver/libvirt_driver_qemu.so  libvirt-daemon-driver-qemu
qemu-system-x86_64      qemu-system-x86
/usr/share/seabios/bios-256k.bin  seabios
TABLE
}

missing_packages() {
    needs | while read -r what package; do
        case $what in
        /*) compgen -G "$what" > /dev/null || echo "$package" ;;
        *) command -v "$what" > /dev/null || echo "$package" ;;
        esac
    done | sort -u
}

# The release of cargo that is there, as a number that compares (1.95 is 1095); 0 without cargo.
cargo_release() {
    local version
    version=$(cargo --version 2>/dev/null | sed -n 's/^cargo \([0-9]*\)\.\([0-9]*\).*/\1 \2/p')
    [ -n "$version" ] || { echo 0; return; }
    echo $((${version% *} * 1000 + ${version#* }))
}
rust_is_there() { [ "$(cargo_release)" -ge $((${RUST_NEEDED%.*} * 1000 + ${RUST_NEEDED#*.})) ]; }

readonly POLICY=/usr/sbin/policy-rc.d
saved=
deny_services() {
    trap allow_services EXIT
    if [ -e "$POLICY" ]; then
        saved=$(mktemp "$POLICY.XXXXXX")
        cp -p "$POLICY" "$saved"
    fi
    printf '#!/bin/sh\nexit 101\n' > "$POLICY"
    chmod 755 "$POLICY"
}
allow_services() {
    if [ -n "$saved" ]; then mv -f "$saved" "$POLICY"; else rm -f "$POLICY"; fi
}

install_packages() {
    local options=(-y -qq -o DPkg::Lock::Timeout=600 -o Dpkg::Use-Pty=0 --no-install-recommends)
    local packages=("$@")
    # QEMU 7.2 conflicts with a newer qemu-utils that came from backports.
    if [[ " $* " == *" qemu-system-x86 "* ]] && dpkg -s qemu-utils > /dev/null 2>&1; then
        packages+=(qemu-utils/bookworm)
        options+=(--allow-downgrades)
    fi
    echo "setup: installing from Debian: ${packages[*]}"
    export DEBIAN_FRONTEND=noninteractive
    deny_services
    apt-get -qq -o DPkg::Lock::Timeout=600 update
    apt-get "${options[@]}" install "${packages[@]}" > /dev/null
    allow_services
    trap - EXIT
    # The tests start daemons of their own; this machine shall announce nothing at its next start.
    if [[ " $* " == *" avahi-daemon "* ]] && command -v systemctl > /dev/null; then
        systemctl --quiet disable avahi-daemon.service avahi-daemon.socket ||
            echo "setup: avahi-daemon's service could not be disabled: it will start with the machine" >&2
    fi
}

install_rust() {
    if command -v rustup > /dev/null; then
        echo "setup: cargo is older than $RUST_NEEDED; running: rustup update stable"
        rustup update stable
        rustup default stable
    else
        echo "setup: no cargo >= $RUST_NEEDED here; running rustup's installer (https://rustup.rs)"
        curl --proto '=https' --tlsv1.2 -sSf https://sh.rustup.rs |
            RUSTUP_INIT_SKIP_PATH_CHECK=yes sh -s -- -y --profile minimal -c rustfmt -c clippy
        hash -r
    fi
    rust_is_there || { echo "setup: still no cargo >= $RUST_NEEDED: see https://rustup.rs" >&2; exit 1; }
}

# The purity check builds for wasm32. Without the target that check alone is skipped, loudly.
install_wasm_target() {
    [ -d "$(rustc --print target-libdir --target wasm32-unknown-unknown)" ] && return
    if command -v rustup > /dev/null; then
        rustup target add wasm32-unknown-unknown && return
    fi
    echo "setup: the target wasm32-unknown-unknown cannot be had: the purity check will be SKIPPED" >&2
}

mapfile -t missing < <(missing_packages)
if [ "${1:-}" = --check ]; then
    rust_is_there || missing+=("rust>=$RUST_NEEDED")
    [ ${#missing[@]} -eq 0 ] || { printf 'missing: %s\n' "${missing[@]}"; exit 1; }
    exit 0
fi
if [ ${#missing[@]} -gt 0 ]; then
    [ "$(id -u)" = 0 ] || { echo "setup: needs root to install ${missing[*]}" >&2; exit 1; }
    install_packages "${missing[@]}"
fi
rust_is_there || install_rust
install_wasm_target
