"""The version of the package."""

VERSION = "0.11.0"
