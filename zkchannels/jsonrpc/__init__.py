"""Line-delimited JSON-RPC 2.0."""
