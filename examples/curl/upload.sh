#!/usr/bin/env bash
# Uploads a file with curl alone, and goes on after every interruption.
#
#   BROKER=https://eu.uploads.example.com TOKEN=… examples/curl/upload.sh FILE [CONTENT_TYPE]
#
# CURL_CA_BUNDLE names the certificate of a broker for tests. Prints the upload as it ends. Gives up after 20 attempts in
# a row that storage kept nothing of, after five lost sessions, and at once when it is refused; the status says so.
set -euo pipefail

file=$1
type=${2:-application/octet-stream}
size=$(($(wc -c <"$file")))
name=$(basename "$file" | sed 's/\\/\\\\/g; s/"/\\"/g')
# The same at every try: an answer that was lost costs nothing.
key=$(head -c 16 /dev/urandom | od -An -tx1 | tr -d ' \n')
answer=$(mktemp)
trap 'rm -f "$answer"' EXIT

# A field of the JSON in $answer. None of those that are asked for has quotes or backslashes in it.
field() { sed -n "s/.*\"$1\":\"\\([^\"]*\\)\".*/\\1/p" "$answer"; }

# A call of the broker: $status and $answer are what it says. The token stands in no list of processes.
broker() {
    local method=$1 path=$2
    shift 2
    status=$(curl -sS --connect-timeout 20 --max-time 90 -X "$method" -H @<(printf 'authorization: Bearer %s\n' "$TOKEN") "$@" \
        -o "$answer" -w '%{http_code}' "$BROKER$path") || status=000
}

# The same, again while the broker is out of reach or has no time.
ask() {
    for pause in 1 2 4 8 16 0; do
        broker "$@"
        case $status in 000 | 408 | 500 | 502 | 503 | 504) sleep "$pause" ;; *) break ;; esac
    done
    case $status in 2*) ;; *)
        echo "$2: $status $(cat "$answer")" >&2
        exit 1
        ;;
    esac
}

give_up() {
    echo "storage: $1" >&2
    exit 1
}

# Whether storage would answer with $1 again.
refuses() { case $1 in 404 | 408 | 410 | 429) false ;; 4??) ;; *) false ;; esac }

# What storage says to the bytes from $1 on: curl sends them with the Content-Range that goes on there.
send() {
    local from=()
    [ "$1" -eq 0 ] || from=(--continue-at "$1")
    # A connection through which almost nothing has come for a minute is dead.
    curl -sS --connect-timeout 20 --speed-limit 1024 --speed-time 60 --upload-file "$file" "${from[@]}" -H "content-type: $type" -H 'expect:' -o /dev/null -w '%{http_code}' "$uri" || true
}

# What storage has: "done", "lost", "refused" and the status, or where to go on.
look() {
    local head
    head=$(curl -sS --connect-timeout 20 --max-time 60 -X PUT -H 'content-length: 0' -H "content-range: bytes */$size" -o /dev/null -D - "$uri") || true
    status=$(sed -n '1s/^[^ ]* \([0-9]*\).*/\1/p' <<<"$head")
    case $status in
    200 | 201) echo "done" ;;
    404 | 410) echo lost ;;
    # Without a Range nothing is there.
    308) sed -n 's/^range: bytes=0-\([0-9]*\).*/\1/Ip' <<<"$head" | awk '{ last = $1 + 1 } END { print last + 0 }' ;;
    *) if refuses "$status"; then echo "refused $status"; fi ;;
    esac
}

ask POST /v1/uploads -H "idempotency-key: $key" -H 'content-type: application/json' \
    -d "{\"filename\": \"$name\", \"content_type\": \"$type\", \"size_bytes\": $size}"
id=$(field id)
uri=$(field uri)

offset=0
pause=1
attempts=0
renewals=0
while :; do
    said=$(send "$offset")
    case $said in 200 | 201) break ;; esac
    if refuses "$said"; then give_up "$said"; fi
    attempts=$((attempts + 1))
    [ "$attempts" -le 20 ] || give_up "nothing was kept $attempts times in a row; at last it said $said"
    sleep "$pause"
    pause=$((pause < 32 ? pause * 2 : 32))
    found=$(look)
    case $found in
    "done") break ;;
    refused*) give_up "${found#refused }" ;;
    lost)
        renewals=$((renewals + 1))
        [ "$renewals" -le 5 ] || give_up "one session after the other was lost"
        ask POST "/v1/uploads/$id/renew"
        uri=$(field uri)
        # It may have been complete after all.
        [ -n "$uri" ] || break
        offset=0
        ;;
    '') ;; # No answer: the same offset again.
    *)
        # What gets on is tried soon.
        [ "$found" -le "$offset" ] || pause=1 attempts=0
        offset=$found
        ;;
    esac
done

ask POST "/v1/uploads/$id/complete"
cat "$answer"
echo
grep -q '"state":"completed"' "$answer"
