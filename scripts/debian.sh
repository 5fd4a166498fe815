# Sourced: installs Debian packages, but only those whose check fails, and asks for root only then.
#
#   want PACKAGE COMMAND...   PACKAGE is missing when COMMAND fails
#   install_missing           installs what was found missing

missing=()

say() { printf '%s: %s\n' "${0##*/}" "$*" >&2; }

want() {
  local package=$1
  shift
  "$@" >/dev/null 2>&1 || missing+=("$package")
}

install_missing() {
  ((${#missing[@]})) || return 0
  local as_root=()
  if ! command -v apt-get >/dev/null; then
    say "missing: ${missing[*]} (Debian's names); install them with this system's own package manager"
    exit 1
  fi
  if ((EUID != 0)); then
    if ! command -v sudo >/dev/null; then
      say "missing, with neither root nor sudo to install them: ${missing[*]}"
      say "ask an administrator for: apt-get install --no-install-recommends ${missing[*]}"
      exit 1
    fi
    as_root=(sudo)
  fi
  say "installing ${missing[*]}"
  "${as_root[@]}" apt-get update -qq >&2
  "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive \
    apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
  missing=()
}
