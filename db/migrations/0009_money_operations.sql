-- Operations on money: refunds, withdrawals, adjustments, compensation, settled cases.
SELECT 1;
