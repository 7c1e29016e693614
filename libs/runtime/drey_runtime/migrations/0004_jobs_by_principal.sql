-- Jobs of one person, newest first, however many others there are.
CREATE INDEX job_by_principal ON jobs.job (principal, id DESC);
