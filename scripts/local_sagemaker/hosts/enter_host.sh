#!/bin/sh
# Inside fresh mount, uts and pid namespaces: give this host its own /opt/ml, /etc/hosts and name, then run.
# usage: enter_host.sh ML_FOLDER HOSTS_FILE HOST_NAME SCRATCH_FOLDER COMMAND...
# A tmpfs covers /opt so that no root is needed to create /opt/ml; what else is in /opt stays visible.
set -e
ml=$1 hosts=$2 name=$3 siblings=$4
shift 4

mkdir -p "$siblings"
mount --rbind /opt "$siblings"
mount -t tmpfs -o mode=755 local_sagemaker /opt
for source in "$siblings"/* "$siblings"/.[!.]*; do
    target=/opt/${source##*/}
    [ "$target" = /opt/ml ] && continue
    if [ -L "$source" ]; then
        cp -P "$source" "$target"
    elif [ -d "$source" ]; then
        mkdir "$target"
        mount --rbind "$source" "$target"
    elif [ -e "$source" ]; then
        : >"$target"
        mount --bind "$source" "$target"
    fi
done
mkdir /opt/ml
mount --rbind "$ml" /opt/ml
mount --bind "$hosts" /etc/hosts
hostname "$name"
cd /opt/ml/code
exec "$@"
