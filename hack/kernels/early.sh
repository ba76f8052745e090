#!/bin/busybox sh
# The first program of the machine. Its root is the host's, read-only, with a file system in memory
# above it; /out is the host's too, to be written. Then it runs the script of the kernel's command
# line (guest=FILE), which doesn't return.
b=/bin/busybox
$b mount -t proc proc /proc
$b mount -t sysfs sys /sys
$b mount -t devtmpfs dev /dev
for module in $($b cat /modules/order); do $b insmod /modules/$module; done
transport=trans=virtio,version=9p2000.L,msize=1048576
$b mount -t 9p -o $transport,ro,cache=loose root /ro
$b mount -t tmpfs tmpfs /rw
$b mkdir -p /rw/upper /rw/work
$b mount -t overlay -o lowerdir=/ro,upperdir=/rw/upper,workdir=/rw/work overlay /root
for folder in proc sys dev; do $b mount --move /$folder /root/$folder; done
$b mount -t tmpfs tmpfs /root/run
$b mkdir -p /root/run/out
$b mount -t 9p -o $transport,cache=none out /root/run/out
exec $b switch_root /root /bin/sh /run/out/guest
