# shellcheck shell=bash
# What the scenarios have in common: the host's state and its comparison, guests' disks as LVM and the kernel make them,
# runs of virt-fsck. A scenario is a file in scenarios/, a bash script that begins with `. "$bench/lib.sh"`, makes its host
# and its guest on /dev/vda, calls remember_host, and then virt_fsck with the exit status that is to come; every such call
# fails if the host is not as it was remembered. The suite runs it in a folder of its own, and takes down afterwards what
# it has made.
set -euo pipefail -o errtrace
trap 'echo "failed here: $BASH_SOURCE:$LINENO: $BASH_COMMAND"' ERR

# The time e2fsck writes into superblocks, so that two repairs of the same bytes give the same bytes; it must not be in
# the past of what the scenario makes.
E2FSCK_TIME=$((EPOCHSECONDS + 3600))
export E2FSCK_TIME
export LVM_SUPPRESS_FD_WARNINGS=1

fail() {
    echo "$*"
    exit 1
}

# What a command says is of interest only when it fails.
quietly() {
    local said
    said=$("$@" 2>&1) || fail "$* failed: $said"
}

# ---- the host's state ----

# All of it that virt-fsck must leave as it was, into the files of FOLDER.
host_state() {
    local to=$1 device
    mkdir -p "$to"
    quietly udevadm settle --timeout=30
    # Keys are not shown. Open counts are.
    dmsetup table >"$to/dm-tables"
    dmsetup info -c --noheadings -O name -o name,uuid,major,minor,attr,open,segments,read_ahead >"$to/dm-devices"
    losetup --list --json --output-all >"$to/loops"
    for device in /sys/block/nbd*; do
        [[ -e $device ]] || continue
        echo "${device##*/} size $(<"$device/size") pid $(cat "$device/pid" 2>/dev/null || echo none)"
    done >"$to/nbd"
    if [[ -d /sys/module/nbd ]]; then echo "the module nbd is loaded" >>"$to/nbd"; fi
    echo "$(</proc/1/mountinfo)" >"$to/mounts"
    echo "$(</proc/swaps)" >"$to/swaps"
    grep -s -v -e '^Personalities' -e '^unused' /proc/mdstat >"$to/md" || :
    lvs --noheadings -O lv_full_name -o lv_full_name,lv_uuid,lv_attr,lv_active,lv_device_open >"$to/logical-volumes" 2>&1
    # LVM's notes on disk: backups of metadata, devices it knows.
    find /etc/lvm -type f -printf '%p %s bytes of %t\n' >"$to/lvm-files"
    # Not what only counts or dates what has happened to a device: the time of its first event (I), how often it got
    # another disk. An empty property is as good as none.
    grep -H -s -v -e '^I:' -e '=$' -e by-diskseq /run/udev/data/b* | sort >"$to/udev-database" || :
    find /dev -name by-diskseq -prune -o -type b -printf '%p %m %U:%G\n' -o -type l -printf '%p -> %l\n' |
        sort >"$to/nodes"
    for device in /sys/block/*/holders/* /sys/block/*/*/holders/*; do
        [[ ! -e $device ]] || echo "$device"
    done >"$to/holders"
    open_devices >"$to/open-devices"
    processes >"$to/processes"
}

# Which process has which block device open.
open_devices() {
    local process device
    find /proc/[0-9]*/fd -mindepth 1 -maxdepth 1 -lname '/dev/*' -printf '%h %l\n' 2>/dev/null |
        while read -r process device; do
            [[ ! -b $device ]] || echo "$device is open in $(<"${process%/fd}/comm")"
        done || :
}

# All that run, but for the kernel's own, udev's workers and this script.
processes() {
    local process name
    for process in /proc/[0-9]*; do
        [[ -e $process/exe && ${process#/proc/} != "$BASHPID" && ${process#/proc/} != "$$" ]] || continue
        name=$(<"$process/comm") 2>/dev/null || continue
        [[ $name == "(udev-worker)" ]] || echo "${process#/proc/} $name"
    done
}

# What udev notes of the moment in which a device was made or activated is gone after its next event.
settle_udev() {
    quietly udevadm settle --timeout=30
    quietly udevadm trigger --subsystem-match=block --action=change
    quietly udevadm settle --timeout=30
}

# From here on the host must stay as it is at this moment: each scenario calls it when its set-up is done, and again when
# it has changed something itself.
remember_host() {
    rm -rf before
    settle_udev
    host_state before
}

# Fails, and shows it, where the host is not as it was.
host_unchanged() {
    rm -rf after
    host_state after
    diff -r -U 0 before after || fail "the host is not as it was before: see above"
}

# ---- runs of virt-fsck ----

# Runs virt-fsck with ARGUMENTS; it must end with STATUS and leave the host as it was. What it printed is in the files
# `report` and `errors`.
virt_fsck() {
    local wanted=$1 status=0
    shift
    echo "+ virt-fsck $*"
    "$virt_fsck" --state-dir "$PWD/state" "$@" >report 2>errors || status=$?
    if [[ $status -ne $wanted ]]; then
        cat report errors
        fail "it ended with $status, not with $wanted"
    fi
    host_unchanged
    [[ -z $(find state /run/virt-fsck -type f 2>/dev/null) ]] || fail "it left $(find state /run/virt-fsck -type f)"
}

# The last run said so.
says() {
    grep -q -e "$1" report errors || {
        cat report errors
        fail "it does not say: $1"
    }
}

# A domain's XML with these block devices as its disks vda, vdb, ...
domain_xml() {
    local device letters=abcdef
    echo "<domain type='kvm'><name>vm1</name><uuid>4dea22b3-1d52-d8f3-2516-782e98ab3fa0</uuid><memory>1</memory>"
    echo "<os><type>hvm</type></os><devices>"
    for device in "$@"; do
        echo "<disk type='block' device='disk'><driver name='qemu' type='raw'/><source dev='$device'/>"
        echo "<target dev='vd${letters:0:1}' bus='virtio'/></disk>"
        letters=${letters:1}
    done
    echo "</devices></domain>"
}

# ---- disks ----

# A volume group of the host over DEVICES.
host_group() {
    local name=$1
    shift
    quietly wipefs -a "$@"
    quietly vgcreate "$name" "$@"
}

host_volume() { # GROUP NAME SIZE
    quietly lvcreate -y -W n -n "$2" -L "$3" "$1"
}

# Shows a guest's disk with its partitions to the host's kernel, as kpartx would; prints the loop device.
open_guest() {
    local device
    device=$(losetup --find --show --partscan "$1")
    udevadm settle --timeout=30
    echo "$device"
}

# The disk LOOP is gone again, and so is every volume group named that lies on it.
close_guest() {
    local device=$1 group
    shift
    for group in "$@"; do
        quietly vgchange -an "$group"
    done
    quietly losetup --detach "$device"
    quietly udevadm settle --timeout=30
}

# A sound ext4 with some files on DEVICE.
sound_ext4() {
    local tree
    tree=$(mktemp -d)
    mkdir "$tree/d"
    for n in {1..40}; do echo "hello $n" >"$tree/d/f$n"; done
    quietly mke2fs -q -F -t ext4 -d "$tree" "$1"
    rm -r "$tree"
}

# The same, with errors that only -y repairs.
damaged_ext4() {
    sound_ext4 "$1"
    printf '%s\n' 'clri /d/f7' 'sif /d/f9 links_count 4' 'sif /d/f8 mode 0' >commands
    quietly debugfs -w -f commands "$1"
    blockdev --flushbufs "$1"
}

# The same, sound, as the kernel leaves it when the power fails: its journal must be replayed.
dirty_ext4() {
    sound_ext4 "$1"
    mkdir -p mnt
    quietly mount "$1" mnt
    for n in {1..20}; do echo "later $n" >"mnt/later$n"; done
    sync -f mnt
    rm mnt/d/f3
    quietly xfs_io -x -c 'shutdown -f' mnt
    quietly umount mnt
    dumpe2fs -h "$1" 2>&1 | grep -q needs_recovery || fail "the journal of $1 is not dirty"
}
