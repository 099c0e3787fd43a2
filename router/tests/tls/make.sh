#!/usr/bin/env bash
# Makes the certificates of this folder: an authority, and server certificates that are good, or bad in exactly one way.
# They protect nothing. All share one key, so that they differ only in their content.
set -euo pipefail
cd "$(dirname "$0")"
work=$(mktemp -d)
trap 'rm -r "$work"' EXIT
mkdir "$work/new"
touch "$work/index.txt"
cat >"$work/ca.cnf" <<EOF
[ca]
default_ca = here
[here]
database = $work/index.txt
new_certs_dir = $work/new
rand_serial = yes
default_md = sha256
policy = any
unique_subject = no
[any]
commonName = supplied
EOF
openssl ecparam -name prime256v1 -genkey -noout | openssl pkcs8 -topk8 -nocrypt -out key.pem

# NAME SUBJECT EXTENSIONS: makes a self-signed certificate.
self_signed() {
    openssl req -x509 -new -key key.pem -subj "/CN=$2" -days 36500 -out "$1.pem" \
        -addext "basicConstraints=critical,$3" "${@:4}"
}
# NAME AUTHORITY HOST FROM UNTIL USAGE: makes a server certificate signed by an authority.
signed() {
    printf 'basicConstraints=critical,CA:FALSE\nsubjectAltName=DNS:%s\nextendedKeyUsage=%s\n' "$3" "$6" >"$work/ext"
    openssl req -new -key key.pem -subj "/CN=$3" -out "$work/csr"
    openssl ca -batch -notext -config "$work/ca.cnf" -cert "$2.pem" -keyfile key.pem -extfile "$work/ext" \
        -startdate "$4" -enddate "$5" -in "$work/csr" -out "$1.pem"
}
self_signed authority "Test authority" CA:TRUE -addext keyUsage=critical,keyCertSign
self_signed other_authority "Another test authority" CA:TRUE -addext keyUsage=critical,keyCertSign
self_signed self_signed gpu.test CA:FALSE -addext subjectAltName=DNS:gpu.test
signed good authority gpu.test 20200101000000Z 21200101000000Z serverAuth
signed expired authority gpu.test 20200101000000Z 20210101000000Z serverAuth
signed not_yet authority gpu.test 21100101000000Z 21200101000000Z serverAuth
signed other_name authority elsewhere.test 20200101000000Z 21200101000000Z serverAuth
signed by_another other_authority gpu.test 20200101000000Z 21200101000000Z serverAuth
signed for_clients authority gpu.test 20200101000000Z 21200101000000Z clientAuth
rm other_authority.pem
