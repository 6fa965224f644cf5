"""The official SDKs, unmodified, in every transport and format that each offers."""
