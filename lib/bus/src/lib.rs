//! The bus: subjects, connection, lease, streams, the driver loop over NATS
