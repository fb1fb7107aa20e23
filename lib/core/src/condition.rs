//! Conditions on agents
