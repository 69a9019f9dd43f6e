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

# All of it that virt-fsck must leave as it was, into the files of FOLDER; with `quick`, what can be seen without asking
# LVM: its active volumes are among the dm tables too.
host_state() {
    local to=$1 device
    mkdir -p "$to"
    quietly udevadm settle --timeout=30
    if [[ ${2:-} != quick ]]; then
        lvs --noheadings -O lv_full_name -o lv_full_name,lv_uuid,lv_attr,lv_active,lv_device_open \
            >"$to/logical-volumes" 2>&1
        # LVM's notes: backups of metadata, devices it knows, and which physical volumes udev has shown to it.
        find /etc/lvm /run/lvm -type f ! -name hints -printf '%p %s bytes of %t\n' >"$to/lvm-files"
    fi
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
    cat /run/mdadm/map >"$to/md-map" 2>/dev/null || :
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
    local process device name
    find /proc/[0-9]*/fd -mindepth 1 -maxdepth 1 -lname '/dev/*' -printf '%h %l\n' 2>/dev/null |
        while read -r process device; do
            # It may have ended meanwhile.
            { read -r name <"${process%/fd}/comm"; } 2>/dev/null || continue
            [[ ! -b $device ]] || echo "$device is open in $name"
        done || :
}

# All that run, but for the kernel's own, udev's workers and this script.
processes() {
    local process name
    for process in /proc/[0-9]*; do
        [[ -e $process/exe && ${process#/proc/} != "$BASHPID" && ${process#/proc/} != "$$" ]] || continue
        { read -r name <"$process/comm"; } 2>/dev/null || continue
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

# Fails, and shows it, where the host is not as it was; `quick` as in host_state.
host_unchanged() {
    rm -rf after
    host_state after "$@"
    [[ ${1:-} != quick ]] || cp before/{logical-volumes,lvm-files} after
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
    ended_with "$wanted" "$status"
    host_unchanged
    nothing_left
}

# The last run had to end with WANTED, and did with STATUS.
ended_with() {
    [[ $1 -ne $2 ]] || return 0
    cat report errors
    fail "it ended with $2, not with $1"
}

# Of its own files and folders, and of its devices wherever they are seen, none is left.
nothing_left() {
    local left
    left=$(find state /run/virt-fsck -type f -o -name 'virt-fsck-*' 2>/dev/null || :)
    [[ -n $left ]] || return 0
    cat report errors /run/virt-fsck/*/ledger
    fail "it left $left"
}

# The last run said so.
says() {
    local words
    for words in "$@"; do
        grep -q -e "$words" report errors || {
            cat report errors
            fail "it does not say: $words"
        }
    done
}

# Takes back what killed runs have left.
recover() {
    "$virt_fsck" recover >recovered 2>&1 || {
        cat recovered
        fail "virt-fsck recover failed"
    }
    nothing_left
}

# A domain's XML with these as its disks vda, vdb, ...: block devices, or files as FORMAT:PATH.
domain_xml() {
    local disk letters=abcdef
    echo "<domain type='kvm'><name>vm1</name><uuid>4dea22b3-1d52-d8f3-2516-782e98ab3fa0</uuid><memory>1</memory>"
    echo "<os><type>hvm</type></os><devices>"
    for disk in "$@"; do
        if [[ $disk == /* ]]; then
            echo "<disk type='block' device='disk'><driver name='qemu' type='raw'/><source dev='$disk'/>"
        else
            echo "<disk type='file' device='disk'><driver name='qemu' type='${disk%%:*}'/><source file='${disk#*:}'/>"
        fi
        echo "<target dev='vd${letters:0:1}' bus='virtio'/></disk>"
        letters=${letters:1}
    done
    echo "</devices></domain>"
}

# ---- virt-fsck killed at every moment ----

# Runs virt-fsck with ARGUMENTS again and again and has it killed at each moment of its ledger: before and after a step,
# and after a step was taken back. After each, recover makes the host what it was, and the guest is no worse than after a
# crash of the checker: the scenario's function `verify` says so, and makes it again what it was at first. The last run is
# not killed, and ends with WANTED. Where `kill_step` is set, only at every so many moments.
kill_matrix() { # NAME WANTED ARGUMENTS...
    local name=$1 wanted=$2 step=${kill_step:-1} point=0 killed=0 status
    shift 2
    while :; do
        point=$((point + step))
        status=0
        # Without bash's own notice that it was killed.
        { VIRT_FSCK_KILL_AT=$point "$virt_fsck" --state-dir "$PWD/state" "$@" >report 2>errors; } 2>/dev/null || status=$?
        [[ $status -eq 137 ]] || break
        killed=$((killed + 1))
        echo "killed at $point: $(tail -n 1 /run/virt-fsck/virt-fsck-*/ledger 2>/dev/null)"
        # A later run does it too.
        if [[ $((killed % 16)) -eq 8 ]]; then
            status=0
            "$virt_fsck" --state-dir "$PWD/state" "$@" >report 2>errors || status=$?
            [[ $status -le 1 ]] || ended_with "$wanted" "$status"
            nothing_left
        else
            recover
        fi
        host_unchanged quick
        verify
    done
    ended_with "$wanted" "$status"
    host_unchanged
    nothing_left
    verify
    # Open, check, close: fewer means that it was not killed where it could be.
    [[ $((killed * step)) -ge 8 ]] || fail "it was killed at $killed moments only"
    echo "kill matrix: $name: $killed points$([[ $step -eq 1 ]] || echo ", one moment in $step")"
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

# Encrypts DEVICE for the file `key`, so that it costs little to open; the rest are options of cryptsetup.
luks() {
    local device=$1
    shift
    [[ -e key ]] || (umask 077 && echo -n secret >key)
    quietly cryptsetup luksFormat -q --pbkdf pbkdf2 --pbkdf-force-iterations 1000 --offset 4096 "$@" "$device" key
}

# Opens and closes it behind udev's back, so that the host sees nothing of it.
open_crypt() { # DEVICE NAME
    quietly env DM_DISABLE_UDEV=1 cryptsetup open --key-file key "$1" "$2"
}

close_crypt() {
    quietly env DM_DISABLE_UDEV=1 cryptsetup close "$1"
}

# A mapping of TABLE (a file) as /dev/mapper/by-hand, in the same way; udev looks at it all the same, and then it is busy.
map_by_hand() {
    quietly env DM_DISABLE_UDEV=1 dmsetup create by-hand "$1"
}

unmap_by_hand() {
    quietly udevadm settle --timeout=30
    quietly env DM_DISABLE_UDEV=1 dmsetup remove --retry by-hand
}

# An ext4 in the LUKS volume DEVICE, which crypttab and fstab know as cr_kvmos on kvm/os; closed.
encrypted_store() {
    mkdir -p kvm/os
    echo "cr_kvmos $1 $PWD/key luks" >>/etc/crypttab
    echo "/dev/mapper/cr_kvmos $PWD/kvm/os ext4 noauto 0 2" >>/etc/fstab
    open_crypt "$1" new
    quietly mke2fs -q -F -t ext4 -m 0 /dev/mapper/new
    close_crypt new
    store=$1
}

# Runs COMMAND while it is open.
in_store() {
    open_crypt "$store" new
    quietly mount /dev/mapper/new kvm/os
    quietly "$@"
    quietly umount kvm/os
    close_crypt new
}

# All bytes of a device, or of a file, into another.
copy() {
    quietly dd if="$1" of="$2" bs=1M conv=fsync,notrunc
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
    quietly mke2fs -q -F -t ext4 -b "${MKE2FS_BLOCK:-1024}" -d "$tree" "$1"
    rm -r "$tree"
}

# The same, with errors that only -y repairs.
damaged_ext4() {
    sound_ext4 "$1"
    printf '%s\n' 'clri /d/f7' 'sif /d/f9 links_count 4' 'sif /d/f8 mode 0' >commands
    quietly debugfs -w -f commands "$1"
    [[ ! -b $1 ]] || blockdev --flushbufs "$1"
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

# ---- guests ----

# A guest's disk of 14 MiB on DEVICE: partitions with a sound, a damaged and a crashed ext4.
guest_of_partitions() {
    local disk
    disk=$(open_guest "$1")
    quietly sfdisk --quiet "$disk" <<'END'
label: gpt
size=4MiB, type=linux
size=4MiB, type=linux
size=4MiB, type=linux
END
    quietly udevadm settle
    sound_ext4 "${disk}p1"
    damaged_ext4 "${disk}p2"
    dirty_ext4 "${disk}p3"
    close_guest "$disk"
}

# The same with the damaged and the crashed one in GROUP, as its volumes root and home.
guest_of_volumes() { # DEVICE GROUP
    local disk
    disk=$(open_guest "$1")
    quietly sfdisk --quiet "$disk" <<'END'
label: gpt
size=4MiB, type=linux
size=10MiB, type=lvm
END
    quietly udevadm settle
    sound_ext4 "${disk}p1"
    quietly vgcreate -s 1M "$2" "${disk}p2"
    host_volume "$2" root 3M
    host_volume "$2" home 3M
    damaged_ext4 "/dev/$2/root"
    dirty_ext4 "/dev/$2/home"
    close_guest "$disk" "$2"
}

# Repairs filesystems as an administrator does it today.
fsck_by_hand() {
    local filesystem status
    for filesystem in "$@"; do
        status=0
        e2fsck -fy "$filesystem" >said 2>&1 || status=$?
        [[ $status -le 1 ]] || fail "e2fsck -fy $filesystem ended with $status: $(<said)"
    done
}

# What was a damaged_ext4 can be made sound, if it is not, and then has all the files that were not damaged.
sound_by_hand() { # DEVICE-OR-FILE [FIRST-SECTOR]
    local filesystem="$1?offset=$((${2:-0} * 512))" n
    fsck_by_hand "$filesystem"
    rm -rf found
    mkdir found
    debugfs -R 'rdump /d found' "$filesystem" >said 2>&1
    for n in {1..6} {10..40}; do
        [[ $(<"found/d/f$n") == "hello $n" ]] || fail "/d/f$n is lost: $(<said)"
    done
}

# Both engines say the same of the guest in vm1.xml, change nothing with -n, and make the same bytes of it with -y as were
# made by hand. The scenario's functions `disk_becomes FILE` and `disk_is FILE` write and compare the guest's disk; the
# files are `damaged` and `repaired`. The rest of the arguments are names: of the sound filesystem, the damaged, the dirty.
both_engines() { # SOUND DAMAGED DIRTY
    local engine
    for engine in user kernel; do
        disk_becomes damaged
        virt_fsck 4 --engine "$engine" --xml vm1.xml -n
        says "$1 .* clean" "$2 .* ERRORS LEFT" "$3 .* clean"
        disk_is damaged
        virt_fsck 1 --engine "$engine" --xml vm1.xml -y
        says "$1 .* clean" "$2 .* corrected"
        disk_is repaired
    done
}
