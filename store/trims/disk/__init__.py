"""The store on disk: containers of weights, the catalog of refs, and what keeps both sound."""
