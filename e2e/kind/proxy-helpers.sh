#!/bin/bash
# proxy-helpers.sh ROOT DIR: copies nft and iptables, with what they load, from the root of a node
# to that of kube-proxy's image.
set -euo pipefail
root=$1 dir=$2
mkdir -p "$dir/usr/sbin"
cd "$root"
programs=(usr/sbin/nft usr/sbin/xtables-nft-multi)
modules=(usr/lib/*/xtables/*.so) # matches and targets, loaded by name
cp "${programs[@]}" "$dir/usr/sbin/"
cp -L --parents "${modules[@]}" "$dir/"
for name in {iptables,ip6tables}{,-save,-restore}; do
	ln -s xtables-nft-multi "$dir/usr/sbin/$name"
done
for file in "${programs[@]}" "${modules[@]}"; do chroot . ldd "/$file"; done |
	grep -o '/[^ ]*\.so[^ ]*' | grep -v : | sort -u | while read -r library; do
	cp -L --parents "${library#/}" "$dir/"
done
