#!/bin/bash
# Runs once in a container of the node image's root, before it becomes the image: what needs the
# root's own systemd and containerd.
set -euo pipefail

# As images/base/Dockerfile of kind does it.
find /lib/systemd/system/sysinit.target.wants/ -name systemd-tmpfiles-setup.service -delete
rm -f /lib/systemd/system/multi-user.target.wants/* /etc/systemd/system/*.wants/* /lib/systemd/system/local-fs.target.wants/* \
	/lib/systemd/system/sockets.target.wants/*{udev,initctl}* /lib/systemd/system/basic.target.wants/*
echo ReadKMsg=no >>/etc/systemd/journald.conf
systemctl enable kubelet.service containerd.service undo-mount-hacks.service
systemctl mask systemd-binfmt.service
mkdir -p /etc/kubernetes/manifests

# The host may not be able to raise limits (no CAP_SYS_RESOURCE), and everything on it inherits
# that.
sed -i -e '/^Limit/d' -e '/^OOMScoreAdjust=/d' /etc/systemd/system/containerd.service
sed -i -e 's/restrict_oom_score_adj = false/restrict_oom_score_adj = true/' /etc/containerd/config.toml
ctr oci spec | jq 'del(.process.rlimits)' >/etc/containerd/cri-base.json

# The images of the components, for kubelet to find. They are unpacked when they are first used.
containerd >/tmp/containerd.log 2>&1 &
pid=$!
for _ in $(seq 100); do
	ctr version >/dev/null 2>&1 && break
	read -rt 0.1 <> <(:) || true
done
for tar in /images/*.tar; do
	ctr --namespace=k8s.io images import --label=io.cri-containerd.pinned=pinned --all-platforms --no-unpack --digests "$tar"
done
kill "$pid"
wait "$pid" || true
rm -f /tmp/containerd.log
