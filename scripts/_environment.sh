# Sourced by the scripts beside it: `environment EXTRA...` makes .venv in the checkout (.venv-VERSION where PYTHON names
# an interpreter), installs mandeldask in it with these extras, and sets $venv. The second time it only looks at a stamp.

say() { echo "$(basename "$0"): $*" >&2; }

is_new_enough() { "$1" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; }

find_python() {
    for python in ${PYTHON:-python3 python3.14 python3.13 python3.12 python3.11}; do
        if is_new_enough "$python"; then
            echo "$python"
            return
        fi
    done
    say "needs Python 3.11 or newer, and ${PYTHON:-python3} is none; install one, or name it: PYTHON=/path/to/python $0"
    return 1
}

environment() {
    cd "$(dirname "$0")/.." || exit 1
    python=$(find_python) || exit 1
    venv=.venv
    if [ -n "${PYTHON:-}" ]; then
        venv=.venv-$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])')
    fi
    extras=$(echo "$*" | tr ' ' ',')
    stamp="$venv/installed-$(echo "$extras" | tr ',' '-')"
    wanted="$(cksum <pyproject.toml) $(pwd)"
    if [ "$(cat "$stamp" 2>/dev/null)" = "$wanted" ] && "$venv/bin/python" -c '' 2>/dev/null; then
        return
    fi
    say "setting up $venv with $("$python" --version) (once; a minute or so)"
    if ! said=$("$python" -m venv "$venv" 2>&1); then
        say "cannot make a virtual environment: $(echo "$said" | tail -n 1) (on Debian: apt install python3-venv)"
        exit 1
    fi
    if ! "$venv/bin/python" -m pip install --quiet --disable-pip-version-check --editable ".[$extras]"; then
        say "pip could not install mandeldask[$extras]: is a package index within reach? See the lines above"
        exit 1
    fi
    echo "$wanted" >"$stamp"
}
