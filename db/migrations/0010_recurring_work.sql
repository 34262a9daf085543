-- What recurring work keeps: renewals, reminders, housekeeping.
SELECT 1;
