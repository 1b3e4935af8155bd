"""The version of the package."""

VERSION = "0.13.3"
