-- Nodes that converge: reissued keys, reconcile passes, canaries.
SELECT 1;
