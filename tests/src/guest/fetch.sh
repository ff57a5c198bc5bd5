# Debian's stock kernel, without installing it: vmlinuz and initramfs in the directory $1, the latter with init ($2) and the modules that
# guests use. The kernel's package is some hundred MiB unpacked; a few of these are kept.
set -eu
modules="virtio_pci virtio_blk virtio_net virtio_rng ext4 crc32c_generic 9p 9pnet_virtio overlay fuse loop nbd autofs4 drbd"
PATH=$PATH:/usr/sbin:/sbin
init=$(realpath "$2")
cd "$1"
mkdir unpacked root root/bin
package=$(apt-cache depends linux-image-amd64 | awk '/Depends:/ { print $2; exit }')
[ -n "$package" ] || { echo "apt knows no kernel" && exit 1; }
# What apt knows may be older than what can be fetched; and some mirrors have the kernel by the other name only.
fetch() { timeout 300 apt-get -q download "$package" || timeout 300 apt-get -q download "$package-unsigned"; }
fetch || { timeout 120 apt-get -q update && fetch; }
dpkg-deb --fsys-tarfile ./*.deb | tar -x -C unpacked ./boot ./lib
rm ./*.deb
version=$(ls unpacked/lib/modules)
depmod -b unpacked "$version"
for module in $modules; do
  modprobe -d "$PWD/unpacked" -S "$version" --show-depends "$module"
done | awk '$1 == "insmod" { print $2 }' | sort -u >needed
while read -r file; do
  to=root/${file#"$PWD/unpacked/"}
  mkdir -p "${to%/*}"
  cp "$file" "$to"
done <needed
cp unpacked/lib/modules/"$version"/modules.order unpacked/lib/modules/"$version"/modules.builtin* "root/lib/modules/$version"
depmod -b root "$version"
cp "$(command -v busybox)" root/bin/busybox
cp "$init" root/init
chmod 755 root/init
(cd root && find . | busybox cpio -o -H newc) >initramfs
mv unpacked/boot/vmlinuz-* vmlinuz
rm -r unpacked root needed
