#!/bin/sh
# Runs the symbolic models in this folder and compares what Verifpal finds with expected.txt.
# See README.md. Needs nothing but a POSIX shell, awk and verifpal.
set -u
LC_ALL=C
export LC_ALL

usage() {
    cat <<'TEXT'
usage: run.sh [--quick] [--optional] [--timeout SECONDS] [MODEL...]

  --quick            one session only, and only the models marked quick (about a minute)
  --optional         a missing verifpal is no error (exit 0, and it says so)
  --timeout SECONDS  give up on one run after so long (default 1200); that is an error
  MODEL...           only these, with or without .vp

Exit: 0 all as expected, 1 a difference, 2 wrong usage, 3 verifpal is missing.
TEXT
}

quick=no
optional=no
limit=1200
chosen=
while [ $# -gt 0 ]; do
    case $1 in
        --quick) quick=yes ;;
        --optional) optional=yes ;;
        --timeout)
            [ $# -gt 1 ] || { usage >&2; exit 2; }
            shift
            limit=$1
            case $limit in '' | *[!0-9]*) usage >&2; exit 2 ;; esac
            ;;
        -h | --help) usage; exit 0 ;;
        -*) usage >&2; exit 2 ;;
        *) name=${1##*/}; chosen="$chosen ${name%.vp}" ;;
    esac
    shift
done

cd "$(dirname "$0")" || exit 1
table=expected.txt
wanted=$(awk '$1 == "#version" { print $2 }' "$table")

if ! command -v verifpal >/dev/null 2>&1; then
    echo "verifpal is not installed: nothing was checked"
    echo "install it (a GPL tool, no part of this project) with one of"
    echo "  cargo install verifpal --version $wanted --locked"
    echo "  cargo +nightly install verifpal --version $wanted --locked --ignore-rust-version"
    [ "$optional" = yes ] && exit 0
    exit 3
fi
found=$(verifpal --version 2>/dev/null | awk '{ print $NF; exit }')
echo "verifpal $found (the expectations were made with $wanted)"
if ! command -v timeout >/dev/null 2>&1; then
    echo "no \`timeout\` here: runs are not limited"
fi

bad=0
checked=0

# Says what is wrong with a model.
wrong() {
    bad=$((bad + 1))
    printf 'DIFF  %-26s %s\n' "$1" "$2"
}

# The table and the folder name the same models.
for file in *.vp; do
    if ! awk -v m="${file%.vp}" '$1 == m { n++ } END { exit n != 1 }' "$table"; then
        wrong "${file%.vp}" "expected.txt has not exactly one row for it"
    fi
done
for name in $chosen; do
    [ -f "$name.vp" ] || wrong "$name" "there is no such model"
done

# Prints the result code of model $1 at $2 sessions; nothing if the tool failed, or "timeout".
# One attempt, one letter and one digit per query: c0 holds, c1 has an attack.
code() {
    if command -v timeout >/dev/null 2>&1; then
        out=$(timeout "$limit" nice -n 10 verifpal verify "$1.vp" \
            --sessions "$2" --result-code --quiet 2>&1 </dev/null)
    else
        out=$(nice -n 10 verifpal verify "$1.vp" \
            --sessions "$2" --result-code --quiet 2>&1 </dev/null)
    fi
    status=$?
    if [ "$status" -eq 124 ]; then
        echo timeout
    elif [ "$status" -eq 0 ]; then
        printf '%s\n' "$out" | awk 'END { if ($0 ~ /^([a-z][01])+$/) print }'
    fi
}

# The attacks of both codes: a query fails if it fails in either.
union() {
    awk -v a="$1" -v b="$2" 'BEGIN {
        if (length(a) != length(b)) { print "lengths-differ"; exit }
        for (i = 1; i < length(a); i += 2)
            r = r substr(a, i, 1) ((substr(a, i + 1, 1) + substr(b, i + 1, 1)) ? 1 : 0)
        print r
    }'
}

# The text of query $2 of model $1.
query() {
    awk -v n="$2" '/^queries\[/ { on = 1; next } on && /\?/ && ++k == n {
        sub(/^[ \t]*/, ""); print; exit }' "$1.vp"
}

started=$(date +%s)
rows=$(awk '!/^#/ && NF' "$table")
while read -r model fast one both must; do
    if [ -n "$chosen" ]; then
        case " $chosen " in *" $model "*) ;; *) continue ;; esac
    elif [ "$quick" = yes ] && [ "$fast" != quick ]; then
        continue
    fi
    if [ ! -f "$model.vp" ]; then
        wrong "$model" "expected.txt has a row for it, the folder has no model"
        continue
    fi
    checked=$((checked + 1))
    begun=$(date +%s)
    got=$(code "$model" 1)
    seen="1: ${got:-tool error}"
    all=$got
    reason=
    [ "$got" = "$one" ] || reason="at 1 session expected $one"
    if [ "$quick" = no ] && [ "$both" != - ]; then
        two=$(code "$model" 2)
        seen="$seen  2: ${two:-tool error}"
        all=$(union "$got" "$two")
        [ "$all" = "$both" ] || reason="${reason:+$reason, }at 1 and 2 together expected $both"
    elif [ "$quick" = yes ] && [ "$one" != "$both" ] && [ "$both" != - ]; then
        seen="$seen  (not all its attacks show at 1 session)"
        must=-
    fi
    # What must fail fails, whatever the rest of the row says; what need not, is not required to.
    named=
    if [ "$must" != - ]; then
        for n in $(echo "$must" | tr , ' '); do
            digit=$(echo "$all" | awk -v n="$n" '{ print substr($0, 2 * n, 1) }')
            [ "$digit" = 1 ] || reason="${reason:+$reason, }query $n must fail and does not"
            named="${named:+$named; }$(query "$model" "$n")"
        done
    elif [ "$quick" = no ]; then
        case $all in *1*) reason="${reason:+$reason, }nothing may fail" ;; esac
    fi
    spent=$(($(date +%s) - begun))
    if [ -n "$reason" ]; then
        wrong "$model" "$seen  $reason"
    else
        printf 'ok    %-26s %s  %ss%s\n' "$model" "$seen" "$spent" \
            "${named:+  fails as it must: $named}"
    fi
done <<ROWS
$rows
ROWS

echo "$checked models, $bad differences, $(($(date +%s) - started)) s"
[ "$checked" -gt 0 ] || exit 1
[ "$bad" -eq 0 ]
