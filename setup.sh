#!/usr/bin/env bash
# Makes .venv from requirements.lock, or finds that there is nothing to do.
#
#   ./setup.sh                  set up; everything it says goes to stderr
#   ./setup.sh --print-python   the same, and print the path of the Python to use: the only thing on stdout
#   ./setup.sh --active         install into the active environment instead, for example one that conda made
#
# An active environment (VIRTUAL_ENV or CONDA_PREFIX) is used as it is when it holds the locked versions and this
# checkout's repro_lib; otherwise .venv is used.
set -euo pipefail

here=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")" && pwd -P)
lock=$here/requirements.lock
torch=$here/requirements-torch.txt
cuda=$here/requirements-cuda.txt
venv=$here/.venv
python=$venv/bin/python
stamp=$venv/.setup-stamp
log=$venv/setup.log

exec 3>&1 1>&2 # stdout is for the answer alone

say() { printf 'setup: %s\n' "$*"; }
fail() { say "$*"; exit 1; }

print_python=no
into_active=no
case ${1-} in
    "") ;;
    --print-python) print_python=yes ;;
    --active) into_active=yes ;;
    -h | --help) sed -n '2,9s/^# \{0,1\}//p' "${BASH_SOURCE[0]}" >&3; exit 0 ;;
    *) say "unknown option '$1'; there are --print-python and --active"; exit 2 ;;
esac

trap 'say "interrupted; run this again to start over"; exit 130' INT TERM

finish() {
    if [ "$print_python" = yes ]; then printf '%s\n' "$1" >&3; fi
    exit 0
}

new_enough() { "$1" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; }

# Print why a Python does not fit this checkout; print nothing when it fits.
why_not() {
    local answer count
    if ! new_enough "$1"; then echo "it has no Python 3.11 or newer"; return; fi
    # From / because in the checkout's folder repro_lib can be imported even where it is not installed.
    if answer=$(cd / && "$1" -m repro_lib.system.environment "$here" 2>/dev/null); then return; fi
    if [ -z "$answer" ]; then echo "repro_lib is not installed in it"; return; fi
    count=$(printf '%s\n' "$answer" | wc -l)
    if [ "$count" -gt 1 ]; then
        echo "${answer%%$'\n'*}, and $((count - 1)) more"
    else
        echo "$answer"
    fi
}

# What a finished set-up writes into the stamp. The folder is part of it: a moved or copied .venv still points to the old one.
fingerprint() {
    "$python" -I -c 'import hashlib, sys
print(hashlib.sha256(b"".join(open(name, "rb").read() for name in sys.argv[2:])).hexdigest(), sys.argv[1])' \
        "$here" "$lock" "$torch" "$cuda" "$here/pyproject.toml"
}

# pip's hundreds of lines go to the log; a person wants to see that it moves, and what is big.
show_progress() {
    local line count=0
    while IFS= read -r line; do
        printf '%s\n' "$line" >>"$log"
        case $line in
            Collecting\ * | Processing\ * | Requirement\ already\ satisfied*)
                count=$((count + 1))
                if [ $((count % 25)) -eq 0 ]; then say "  $count packages found"; fi
                ;;
            *Downloading*[0-9][0-9].[0-9]" MB)"*) say "  ${line#"${line%%[![:space:]]*}"}" ;;
            Installing\ collected\ packages*) say "  unpacking" ;;
        esac
    done
}

pip_install() {
    if ! "$python" -m pip install --disable-pip-version-check --no-input --progress-bar off "$@" 2>&1 | show_progress; then
        # What a build says stands indented above pip's own words.
        grep -E '^ *([A-Za-z.]*Error|ERROR): ' "$log" | tail -n 3 || true
        network=$(grep -q '^WARNING: Retrying' "$log" && echo 'is there a network? ') || true
        fail "pip could not install the packages (${network}details: $log); run $here/setup.sh again."
    fi
}

# Into the environment of $python. What is downloaded must have one of the hashes in the files; torch has none there.
install_packages() {
    case $python in
        *[{}\$]*) fail "setuptools takes {, } and \$ in the name of a folder for its own, here in $python; rename the folder." ;;
    esac
    say "installing torch and the packages of requirements.lock (pip's own words: $log)"
    pip_install --no-deps -r "$torch"
    if "$python" -I "$here/repro_lib/system/environment.py" --needs-cuda-parts; then
        pip_install --no-deps --require-hashes -r "$cuda"
    fi
    pip_install --require-hashes -r "$lock"
    # setuptools is in the lock: no isolated build, which would fetch it once more.
    pip_install --no-deps --no-build-isolation -e "$here"
    reason=$(why_not "$python")
    if [ -n "$reason" ]; then fail "pip finished, but ${python%/bin/python} does not fit ($reason)."; fi
}

for active in "${VIRTUAL_ENV-}" "${CONDA_PREFIX-}"; do
    if [ -z "$active" ] || [ "$active" -ef "$venv" ]; then continue; fi
    reason=$(why_not "$active/bin/python")
    if [ -z "$reason" ]; then finish "$active/bin/python"; fi
    if [ "$into_active" = yes ]; then
        python=$active/bin/python
        log=$active/setup.log
        new_enough "$python" || fail "the active environment $active has no Python 3.11 or newer."
        : >"$log" || fail "the active environment $active is not writable."
        install_packages
        finish "$python"
    fi
    say "the active environment $active does not fit ($reason); using $venv"
done
if [ "$into_active" = yes ]; then fail "no other environment than .venv is active; activate one, or leave out --active."; fi

# --- is .venv right already? -----------------------------------------------------------------------------------------
state=$(cat "$stamp" 2>/dev/null || true)
fresh=no # make the folder anew?
if [ ! -e "$venv" ]; then
    fresh=yes
elif [[ $state == "in progress "* ]]; then
    # Two runs at once must not pull the folder from under each other.
    if kill -0 "${state#in progress }" 2>/dev/null; then
        fail "process ${state#in progress } is setting up $venv already; wait for it, or stop it, and run this again."
    fi
    say "the last set-up was interrupted; starting over"
    fresh=yes
elif ! new_enough "$python"; then
    say "$venv has no working Python 3.11 or newer; making it anew"
    fresh=yes
elif [ "$state" = "$(fingerprint)" ]; then
    finish "$python"
elif [ -n "$state" ] && [ "${state#* }" != "$here" ]; then
    say "$venv was made in another folder (${state#* }); making it anew"
    fresh=yes
elif [ -z "$state" ] && [ -z "$(why_not "$python")" ]; then
    # Made by hand, and right.
    if fingerprint 2>/dev/null >"$stamp"; then :; fi
    finish "$python"
fi

# --- make or update it -----------------------------------------------------------------------------------------------
if [ ! -w "$here" ] || { [ -e "$venv" ] && [ ! -w "$venv" ]; }; then
    fail "the folder $here is not writable, so .venv cannot be made in it."
fi
if [ "$fresh" = yes ]; then
    base=
    without_venv=
    # The lock is resolved for 3.11 to 3.13, so these come before a newer python3.
    for name in python3 python3.11 python3.12 python3.13 python3 python; do
        candidate=$(command -v "$name") && new_enough "$candidate" || continue
        if [ "$name" = python3 ] && [ -z "${seen_python3-}" ]; then
            seen_python3=yes
            "$candidate" -c 'import sys; sys.exit(sys.version_info >= (3, 14))' || continue
        fi
        if "$candidate" -c 'import venv, ensurepip' 2>/dev/null; then
            base=$candidate
            break
        fi
        without_venv=${without_venv:-$candidate}
    done
    if [ -z "$base" ] && [ -n "$without_venv" ]; then
        fail "$without_venv has no venv module: install it (Debian and Ubuntu: apt install python3-venv) and run this again."
    elif [ -z "$base" ]; then
        fail "no Python 3.11 or newer was found (looked for python3, python3.11, python3.12, python3.13): install one and run this again."
    fi
    say "making $venv with $base ($("$base" -c 'import platform; print(platform.python_version())'))"
    rm -rf -- "$venv"
    mkdir -- "$venv"
else
    say "$venv is not what requirements.lock says; updating it"
fi
echo "in progress $$" >"$stamp"
: >"$log"
if [ "$fresh" = yes ] && ! "$base" -m venv "$venv" >>"$log" 2>&1; then
    fail "$base could not make a virtual environment (details: $log)."
fi

install_packages
fingerprint >"$stamp.new"
mv -f -- "$stamp.new" "$stamp" # whole or not at all
say "ready: $python"
finish "$python"
