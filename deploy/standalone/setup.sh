#!/bin/sh
# Makes what the containers need: an authority and three certificates, each with a SPIFFE ID as its one
# name, good for 30 days; a folder for the keys; and a file that says whose they are.
#
# To try it out. In earnest, certificates come from what you have: SPIRE, cert-manager, Vault. All that
# the service looks at is spiffe://TRUST DOMAIN/ns/NAMESPACE/sa/ACCOUNT.
set -eu
cd "$(dirname "$0")"
umask 077
mkdir -p certs state
cd certs

openssl ecparam -name prime256v1 -genkey -noout -out ca.key
openssl req -x509 -new -key ca.key -days 30 -subj "/O=tenant-authz standalone" -out ca.pem

issue() {  # issue FILE NAMESPACE ACCOUNT
    openssl ecparam -name prime256v1 -genkey -noout -out "$1.key"
    cat > "$1.ext" <<EXTENSIONS
basicConstraints = critical, CA:FALSE
keyUsage = critical, digitalSignature
extendedKeyUsage = serverAuth, clientAuth
subjectAltName = critical, URI:spiffe://standalone.internal/ns/$2/sa/$3
EXTENSIONS
    openssl req -new -key "$1.key" -subj / -out "$1.csr"
    openssl x509 -req -in "$1.csr" -CA ca.pem -CAkey ca.key -CAcreateserial -days 30 \
        -extfile "$1.ext" -out "$1.pem" 2>/dev/null
    rm "$1.csr" "$1.ext"
}
issue authz authz-system authz
issue shop shop web
issue bank bank api
rm ca.key ca.srl  # nobody signs anything more: run this again for new ones

echo "OWNER=$(id -u):$(id -g)" > ../.env
