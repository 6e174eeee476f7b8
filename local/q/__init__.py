"""`./dev q`: the admin API from a shell, of the local stack or of an app in Azure; needs neither of them to start."""
