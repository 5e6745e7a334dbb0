# Uploads of wget: wget.sh URL FILE...; the last file is refused.
set -eu
url=$1
shift
report=$(mktemp)
trap 'rm -f "$report"' EXIT
out() {
    wget -S -T 60 --tries=1 --content-on-error -O - -o "$report" "$@" || grep -q '^  HTTP' "$report" || cat "$report" >&2
    echo " $(sed -n 's,^  HTTP/1.1 \([0-9]*\).*,\1,p' "$report" | tail -n 1)"
}

printf 'GET ' && out "$url/get"
for file; do
    printf 'plain %s ' "${file##*/}" && out --post-file="$file" "$url/plain"
done
printf 'kept plain ' && out --post-file="$file" "$url/refused/404"
printf 'closed plain ' && out --no-http-keep-alive --post-file="$file" "$url/refused/413"
