#!/usr/bin/env bash
# Builds the GPU image and pushes it to ECR; prints the image's URI, which goes into the notebook's `image_uri`.
#
#   ./build_and_push.sh REGION [REPOSITORY]      needs docker and an AWS account that may push to ECR
#
# BASE_REGISTRY is where AWS keeps its images for the region. It must be given where that is another account than in most
# regions: https://github.com/aws/deep-learning-containers, docs/reference/region_availability.md.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"

region=${1:?usage: build_and_push.sh REGION [REPOSITORY], such as build_and_push.sh us-east-1}
repository=${2:-rl-workshop-verl}
for tool in docker aws; do
    command -v "$tool" > /dev/null || { echo "$tool is not installed; this script needs docker and the AWS CLI." >&2; exit 2; }
done

account=$(aws sts get-caller-identity --query Account --output text)
base=${BASE_REGISTRY:-763104351884.dkr.ecr.$region.amazonaws.com}
own=$account.${base#*.}
# The tag is what the image is made of: the same files give the same tag, and a pushed tag is never replaced.
tag=verl-0.9.1-$(cat Dockerfile requirements.txt | sha256sum | cut -c1-12)
image=$own/$repository:$tag

if aws ecr describe-images --region "$region" --repository-name "$repository" --image-ids imageTag="$tag" > /dev/null 2>&1; then
    echo "$image"
    exit 0
fi
aws ecr describe-repositories --region "$region" --repository-names "$repository" > /dev/null 2>&1 ||
    aws ecr create-repository --region "$region" --repository-name "$repository" \
        --image-tag-mutability IMMUTABLE --image-scanning-configuration scanOnPush=true > /dev/null
for registry in "$base" "$own"; do
    aws ecr get-login-password --region "$region" | docker login --username AWS --password-stdin "$registry" >&2
done
docker build --platform linux/amd64 --build-arg REGISTRY="$base" --tag "$image" . >&2
docker push "$image" >&2
echo "$image"
