//! Containers: cgroups, the task supervisor's mechanics, process facts
