#!/usr/bin/env bash
# Puts the pizza workflow on Cloud Run, with Firestore as its store and Cloud Tasks as its clock.
#
#     PROJECT=my-project ./examples/deploy/cloud-run/deploy.sh            # from the root of the repository
#     PROJECT=my-project DRY_RUN=1 ./examples/deploy/cloud-run/deploy.sh  # print every command, run none
#
# Each step says what it is for, then prints its commands before it runs them. All may be repeated: what is there is kept
# or brought up to date. Needs gcloud (signed in, with billing), npx (for the indexes), and asyncflow on this machine.
set -euo pipefail

PROJECT=${PROJECT:?say which project: PROJECT=my-project $0}
REGION=${REGION:-europe-west1}
SERVICE=${SERVICE:-pizza}
QUEUE=${QUEUE:-asyncflow}
COLLECTION=${COLLECTION:-asyncflow}
WORKFLOWS=${WORKFLOWS:-examples/pizza.py}
DRY_RUN=${DRY_RUN:-}

APP_ACCOUNT="asyncflow-app@$PROJECT.iam.gserviceaccount.com"     # what the app is
TASKS_ACCOUNT="asyncflow-tasks@$PROJECT.iam.gserviceaccount.com" # in whose name tasks and sweeps are delivered
IMAGE="$REGION-docker.pkg.dev/$PROJECT/asyncflow/$SERVICE"
STORE="firestore://$PROJECT/$COLLECTION"
SCHEDULER="cloudtasks://$PROJECT/$REGION/$QUEUE"

step() { printf '\n# %s\n' "$*"; }
show() { printf '+'; printf ' %q' "$@"; printf '\n'; }
run() {
    show "$@"
    [ -n "$DRY_RUN" ] || "$@"
}
# The first command if it works, else the second: make, or bring up to date.
either() {
    local make=() update=() part=make
    for word in "$@"; do
        if [ "$word" = --or-- ]; then part=update; elif [ $part = make ]; then make+=("$word"); else update+=("$word"); fi
    done
    show "${make[@]}"
    printf '  or, where it is there:\n'
    show "${update[@]}"
    [ -n "$DRY_RUN" ] || "${make[@]}" 2>/dev/null || "${update[@]}"
}

step "The services this uses"
run gcloud services enable run.googleapis.com firestore.googleapis.com cloudtasks.googleapis.com \
    cloudscheduler.googleapis.com artifactregistry.googleapis.com cloudbuild.googleapis.com --project "$PROJECT"

# The address of a Cloud Run service is known before it is there.
if [ -n "$DRY_RUN" ]; then NUMBER=123456789012; else NUMBER=$(gcloud projects describe "$PROJECT" --format 'value(projectNumber)'); fi
URL="https://$SERVICE-$NUMBER.$REGION.run.app"

step "Two service accounts: one that the app is, one in whose name tasks are delivered"
for account in app tasks; do
    either gcloud iam service-accounts create "asyncflow-$account" --project "$PROJECT" --or-- \
        gcloud iam service-accounts describe "asyncflow-$account@$PROJECT.iam.gserviceaccount.com" --project "$PROJECT"
done

step "The app may read and write Firestore, make tasks, and make them in the name of the other account"
for role in roles/datastore.user roles/cloudtasks.enqueuer roles/cloudtasks.viewer; do
    run gcloud projects add-iam-policy-binding "$PROJECT" --member "serviceAccount:$APP_ACCOUNT" --role $role --condition None
done
run gcloud iam service-accounts add-iam-policy-binding "$TASKS_ACCOUNT" --member "serviceAccount:$APP_ACCOUNT" \
    --role roles/iam.serviceAccountUser --project "$PROJECT"

step "The database, and the indexes that this store's questions need (building them takes minutes)"
either gcloud firestore databases create --location "$REGION" --project "$PROJECT" --or-- \
    gcloud firestore databases describe --project "$PROJECT"
# The Firebase command, since gcloud knows no index over all histories at once.
work=$(mktemp -d)
trap 'rm -r "$work"' EXIT
echo '{"firestore": {"indexes": "firestore.indexes.json"}}' >"$work/firebase.json"
show asyncflow doctor --indexes --app "$WORKFLOWS" --store "$STORE"
asyncflow doctor --indexes --app "$WORKFLOWS" --store "$STORE" >"$work/firestore.indexes.json"
run npx --yes firebase-tools@15 deploy --only firestore:indexes --project "$PROJECT" --config "$work/firebase.json"

step "The queue: tasks are brought again with growing rests until they are answered with 200"
either gcloud tasks queues create "$QUEUE" --location "$REGION" --project "$PROJECT" --or-- \
    gcloud tasks queues describe "$QUEUE" --location "$REGION" --project "$PROJECT"
run gcloud tasks queues update "$QUEUE" --location "$REGION" --project "$PROJECT" --max-attempts 20 \
    --min-backoff 1s --max-backoff 300s --max-doublings 8 --max-concurrent-dispatches 100 --max-dispatches-per-second 100

step "The image"
either gcloud artifacts repositories create asyncflow --repository-format docker --location "$REGION" --project "$PROJECT" --or-- \
    gcloud artifacts repositories describe asyncflow --location "$REGION" --project "$PROJECT"
show "build and push $IMAGE with examples/deploy/cloud-run/Dockerfile"
[ -n "$DRY_RUN" ] || gcloud builds submit --project "$PROJECT" --config /dev/stdin . <<BUILD
steps:
- name: gcr.io/cloud-builders/docker
  args: [build, -f, examples/deploy/cloud-run/Dockerfile, -t, $IMAGE, .]
images: [$IMAGE]
BUILD

step "The service: only those may call it who have roles/run.invoker, so Cloud Run verifies who delivers (and takes the signature off)"
run gcloud run deploy "$SERVICE" --image "$IMAGE" --region "$REGION" --project "$PROJECT" --no-allow-unauthenticated \
    --service-account "$APP_ACCOUNT" --timeout 300 --concurrency 32 --cpu 1 --memory 512Mi --max-instances 20 \
    --set-env-vars "^;^ASYNCFLOW_STORE=$STORE;ASYNCFLOW_SCHEDULER=$SCHEDULER;ASYNCFLOW_BASE_URL=$URL;ASYNCFLOW_SERVICE_ACCOUNT=$TASKS_ACCOUNT;ASYNCFLOW_VERIFIED_BY=platform"
run gcloud run services add-iam-policy-binding "$SERVICE" --region "$REGION" --project "$PROJECT" \
    --member "serviceAccount:$TASKS_ACCOUNT" --role roles/run.invoker

step "The sweep, once a minute: it finds what was due and not woken"
sweep=(asyncflow-sweep --location "$REGION" --project "$PROJECT" --schedule '* * * * *' --uri "$URL/tasks/sweep"
    --http-method POST --oidc-service-account-email "$TASKS_ACCOUNT" --oidc-token-audience "$URL" --attempt-deadline 300s)
either gcloud scheduler jobs create http "${sweep[@]}" --or-- gcloud scheduler jobs update http "${sweep[@]}"

step "Done. Try it: you may call it if you are an owner of the project"
cat <<TRY
TOKEN=\$(gcloud auth print-identity-token)
curl -X POST "$URL/workflows/PizzaOrder?id=o-1" -H "Authorization: Bearer \$TOKEN" -H 'Content-Type: application/json' -d '{}'
curl "$URL/workflows/PizzaOrder/o-1" -H "Authorization: Bearer \$TOKEN"

# And look whether all of it works:
ASYNCFLOW_STORE=$STORE ASYNCFLOW_SCHEDULER=$SCHEDULER ASYNCFLOW_BASE_URL=$URL \\
ASYNCFLOW_SERVICE_ACCOUNT=$TASKS_ACCOUNT asyncflow doctor --app $WORKFLOWS
TRY
