/// Sleeves and managers (A5, A9).
pub(super) const V7_WALLETS: &str = "
-- At which server a manager waits for its sleeves, and until when that is to be believed. By its
-- serial number, which is all that a sleeve knows of it.
CREATE TABLE relay_places (
    manager {text} NOT NULL CONSTRAINT relay_places_manager_key PRIMARY KEY,
    server {text} NOT NULL,
    address {text} NOT NULL,
    until {int} NOT NULL
) {strict};
CREATE INDEX relay_places_by_server ON relay_places (server);

-- Logins with an alarm password, as managers tell of them: each once, however often it is told.
CREATE TABLE wallet_alarms (
    id {text} NOT NULL CONSTRAINT wallet_alarms_id_key PRIMARY KEY,
    manager_id {text} NOT NULL REFERENCES devices (id),
    alarm {text} NOT NULL,
    sleeve {text} NOT NULL,
    sleeve_id {text} REFERENCES devices (id),
    session {text} NOT NULL,
    raised_at {int} NOT NULL,
    at {int} NOT NULL,
    CONSTRAINT wallet_alarms_manager_id_alarm_key UNIQUE (manager_id, alarm)
) {strict};
CREATE INDEX wallet_alarms_by_manager ON wallet_alarms (manager_id, at);

-- Who was blocked or revoked since a moment: what the meetings under way are looked at for.
CREATE INDEX devices_wallets_changed ON devices (updated_at)
    WHERE kind IN ('sleeve', 'manager');
CREATE INDEX certificates_revoked ON certificates (revoked_at) WHERE revoked_at IS NOT NULL;
";
