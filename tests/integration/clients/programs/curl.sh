# Uploads of curl: curl.sh URL FILE...; the last file is refused.
set -eu
url=$1
shift
out() { curl -sS -m 60 -w ' %{http_code}' "$@" && echo; }

printf 'GET ' && out "$url/get"
for file; do
    size=${file##*/}
    printf 'plain %s ' "$size" && out --data-binary "@$file" "$url/plain"
    printf 'chunked %s ' "$size" && out -X POST -H 'Transfer-Encoding: chunked' -T - "$url/chunked" <"$file"
    printf 'expecting %s ' "$size" && out -H 'Expect: 100-continue' --data-binary "@$file" "$url/expecting"
    printf 'old %s ' "$size" && out --http1.0 --data-binary "@$file" "$url/old"
    printf 'upgrading %s ' "$size" && out --http2 --data-binary "@$file" "$url/upgrading"
done
# One process for three requests; the number of new connections follows the status.
curl -sS -m 60 -w ' %{http_code} %{num_connects}\n' --data-binary "@$file" "$url/first" "$url/second" "$url/third" |
    sed 's/^/reused /'

printf 'kept plain ' && out --data-binary "@$file" "$url/refused/401"
printf 'kept chunked ' && out -X POST -H 'Transfer-Encoding: chunked' -T - "$url/refused/404" <"$file"
printf 'closed plain ' && out -H 'Connection: close' --data-binary "@$file" "$url/refused/413"
printf 'closed chunked ' &&
    out -X POST -H 'Connection: close' -H 'Transfer-Encoding: chunked' -T - "$url/refused/429" <"$file"
# From 1 MiB on, curl expects 100 Continue unless it is told not to.
printf 'unexpecting plain ' && out -H 'Expect:' -H 'Connection: close' --data-binary "@$file" "$url/refused/413"
printf 'unexpecting chunked ' &&
    out -X POST -H 'Expect:' -H 'Connection: close' -H 'Transfer-Encoding: chunked' -T - "$url/refused/429" <"$file"
printf 'old plain ' && out --http1.0 -H 'Expect:' --data-binary "@$file" "$url/refused/404"
# One process for a refused upload and a whole one.
curl -sS -m 60 -w ' %{http_code}\n' -H 'Expect:' --data-binary "@$file" "$url/refused/401" "$url/after" |
    sed 's/^/twice /'
