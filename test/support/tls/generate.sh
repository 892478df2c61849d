#!/bin/sh
# Makes the certificates of this folder anew. They are for tests on the loopback only, and last a hundred years.
set -eu
cd "$(dirname "$0")"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

cat > "$work/config" <<END
[req]
distinguished_name = name
[name]
[ca]
default_ca = signer
[signer]
database = $work/index
new_certs_dir = $work
rand_serial = yes
default_md = sha256
unique_subject = no
policy = any
[any]
commonName = supplied
[authority]
basicConstraints = critical, CA:TRUE
keyUsage = critical, keyCertSign, cRLSign
subjectKeyIdentifier = hash
[server]
basicConstraints = CA:FALSE
keyUsage = digitalSignature
# etcd dials itself with its own certificate, so it is a client as well
extendedKeyUsage = serverAuth, clientAuth
subjectAltName = DNS:localhost, IP:127.0.0.1, IP:::1
[servers-only]
basicConstraints = CA:FALSE
keyUsage = digitalSignature
extendedKeyUsage = serverAuth
[client]
basicConstraints = CA:FALSE
keyUsage = digitalSignature
extendedKeyUsage = clientAuth
END
: > "$work/index"
end=21200101000000Z

# certificate <file name> <common name> <section of the config> <how to sign>...
certificate() {
  name=$1 subject=$2 section=$3
  shift 3
  openssl ecparam -name prime256v1 -genkey -noout -out "$work/$name-key.pem"
  openssl req -new -config "$work/config" -key "$work/$name-key.pem" -subj "/CN=$subject" -out "$work/$name.csr"
  # `ca` rather than `x509`: every version of it can set the start, so that no clock finds them "not yet valid"
  openssl ca -batch -notext -config "$work/config" -extensions "$section" "$@" \
    -startdate 20200101000000Z -enddate "$end" -in "$work/$name.csr" -out "$name.pem"
}

authority() {
  certificate "$1" "$2" authority -selfsign -keyfile "$work/$1-key.pem"
}

signed_by() {
  echo "-cert $1.pem -keyfile $work/$1-key.pem"
}

authority ca "Test CA"
authority foreign-ca "Foreign test CA"
certificate server localhost server $(signed_by ca)
certificate client test-client client $(signed_by ca)
certificate no-client test-client servers-only $(signed_by ca)
certificate foreign-client test-client client $(signed_by foreign-ca)
end=20200201000000Z
certificate expired-client test-client client $(signed_by ca)
certificate expired-server localhost server $(signed_by ca)
# the keys of the authorities are not kept: nothing is signed after this
for name in server client no-client foreign-client expired-client expired-server; do
  mv "$work/$name-key.pem" .
done
chmod 644 ./*.pem
