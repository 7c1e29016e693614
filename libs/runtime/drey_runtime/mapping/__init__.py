"""From and to protobuf: what several services share."""
