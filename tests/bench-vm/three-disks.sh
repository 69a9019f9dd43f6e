# shellcheck shell=bash
# A guest with three disks, each of another kind, that hold two volume groups in several partitions: for lib.sh.

# vda is the volume host/vm1a, vdb the image vm1b.qcow2, vdc the raw image vm1c.img, which is a physical volume as a whole.
# lvg1/home has segments on vda and vdc, lvg2/data is striped over vda and vdb. In `disks` is what domain_xml wants; the
# files damaged.* and the file `layout` are for the functions below.
three_disks() {
    host_group host /dev/vda
    host_volume host vm1a 12M
    truncate -s 10M vm1b.img
    truncate -s 6M vm1c.img
    local first second third
    first=$(open_guest /dev/host/vm1a)
    quietly sfdisk --quiet "$first" <<'END'
label: gpt
size=5MiB, type=lvm
size=4MiB, type=lvm
END
    second=$(open_guest vm1b.img)
    quietly sfdisk --quiet "$second" <<'END'
label: dos
start=2048, size=4MiB, type=lvm
size=4MiB, type=lvm
END
    third=$(open_guest vm1c.img)
    quietly udevadm settle
    small_group lvg1 "${first}p1" "$third"
    small_group lvg2 "${first}p2" "${second}"p{1,2}
    volume root -L 3M lvg1 "${first}p1"
    volume home -l 2 lvg1 "${first}p1"
    quietly lvextend -L 4M lvg1/home "$third"
    volume data -i 2 -I 64k -L 4M lvg2 "${first}p2" "${second}p1"
    volume srv -L 3M lvg2 "${second}p2"
    damaged_ext4 /dev/lvg1/root
    dirty_ext4 /dev/lvg1/home
    damaged_ext4 /dev/lvg2/data
    sound_ext4 /dev/lvg2/srv
    [[ $(dmsetup table lvg1-home | wc -l) -eq 2 ]]
    note_layout "$first" "$second" "$third"
    quietly vgchange -an lvg1 lvg2
    close_guest "$first"
    close_guest "$second"
    close_guest "$third"

    copy /dev/host/vm1a damaged.a
    quietly qemu-img convert -O qcow2 vm1b.img damaged.b
    mv vm1c.img damaged.c
    # shellcheck disable=SC2034 # For the scenario.
    disks=(/dev/host/vm1a "qcow2:$PWD/vm1b.qcow2" "raw:$PWD/vm1c.img")
    three_disks_become damaged
}

# Little of a small disk goes to LVM itself.
small_group() { # NAME DEVICE...
    quietly vgcreate -s 512k --metadatasize 128k --dataalignment 64k "$@"
}

volume() { quietly lvcreate -y -W n -n "$@"; }

three_disks_become() {
    copy "$1.a" /dev/host/vm1a
    cp "$1.b" vm1b.qcow2
    cp "$1.c" vm1c.img
}

three_disks_are() {
    cmp "$1.a" /dev/host/vm1a
    quietly qemu-img compare -f qcow2 -F qcow2 "$1.b" vm1b.qcow2
    quietly qemu-img check -q -f qcow2 vm1b.qcow2
    cmp "$1.c" vm1c.img
}

# The volumes' tables, with `@` for a device that has all three disks one after the other.
note_layout() {
    local disk part base=0 volume
    for disk in "$@"; do
        for part in "$disk" "$disk"p?; do
            [[ -b $part ]] || continue
            part=/sys/class/block/${part#/dev/}
            echo "$(<"$part/dev") $((base + $(cat "$part/start" 2>/dev/null || echo 0)))"
        done
        base=$((base + $(blockdev --getsz "$disk")))
    done >parts
    for volume in lvg1-root lvg1-home lvg2-data lvg2-srv; do
        dmsetup table "$volume" | awk -v volume="$volume" '
            FILENAME == "parts" { start[$1] = $2; next }
            { for (i = 1; i < NF; i++) if ($i in start) { $(i + 1) += start[$i]; $i = "@" } print volume, $0 }
        ' parts -
    done >layout
}
