-- What people call things is kept in Unicode's form NFC from now on, so that of names that look the
-- same there is one. Of two that were there already the later one is told apart by its id.
DO $$
BEGIN
    -- no other encoding can hold the other form
    IF getdatabaseencoding() <> 'UTF8' THEN
        RETURN;
    END IF;

    UPDATE catalog.pv SET device = normalize(device), version = (SELECT version + 1 FROM catalog.version)
    WHERE device IS NOT NFC NORMALIZED;
    UPDATE catalog.version SET version = version + 1
    WHERE EXISTS (SELECT FROM catalog.pv WHERE pv.version > catalog.version.version);

    UPDATE catalog.tag_group later
    SET name = left(name, 40) || ' ' || id, folded = left(folded, 40) || ' ' || id
    WHERE EXISTS (
        SELECT FROM catalog.tag_group first
        WHERE first.id < later.id AND normalize(first.folded) = normalize(later.folded)
    );
    UPDATE catalog.tag_group SET name = normalize(name), folded = normalize(folded)
    WHERE name IS NOT NFC NORMALIZED OR folded IS NOT NFC NORMALIZED;

    UPDATE catalog.tag later
    SET name = left(name, 40) || ' ' || id, folded = left(folded, 40) || ' ' || id
    WHERE EXISTS (
        SELECT FROM catalog.tag first
        WHERE first.group_id = later.group_id AND first.number < later.number
            AND normalize(first.folded) = normalize(later.folded)
    );
    UPDATE catalog.tag SET name = normalize(name), folded = normalize(folded)
    WHERE name IS NOT NFC NORMALIZED OR folded IS NOT NFC NORMALIZED;

    -- of two devices that have become one the policy of the one that was spelled so already holds
    UPDATE catalog.default_policy later SET device = normalize(device)
    WHERE device IS NOT NFC NORMALIZED AND NOT EXISTS (
        SELECT FROM catalog.default_policy other
        WHERE other.id <> later.id AND normalize(other.device) = normalize(later.device)
    );

    UPDATE snapshot.label
    SET labels = ARRAY(
        SELECT normalize(name) FROM unnest(labels) WITH ORDINALITY AS each (name, place) ORDER BY place
    )
    WHERE EXISTS (SELECT FROM unnest(labels) AS each (name) WHERE name IS NOT NFC NORMALIZED);
    UPDATE snapshot.golden later SET label = normalize(label)
    WHERE label IS NOT NFC NORMALIZED AND NOT EXISTS (
        SELECT FROM snapshot.golden other
        WHERE other.scope = later.scope AND other.label <> later.label
            AND normalize(other.label) = normalize(later.label)
    );
END $$;
