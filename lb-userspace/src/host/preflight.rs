//! What must be true of the machine before `lbd` touches the data plane, all findings at once.
