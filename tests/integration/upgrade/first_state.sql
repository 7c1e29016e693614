SET statement_timeout = 0;
SET lock_timeout = 0;
SET idle_in_transaction_session_timeout = 0;
SET transaction_timeout = 0;
SET client_encoding = 'UTF8';
SET standard_conforming_strings = on;
SELECT pg_catalog.set_config('search_path', '', false);
SET check_function_bodies = false;
SET xmloption = content;
SET client_min_messages = warning;
SET row_security = off;
CREATE SCHEMA audit;
CREATE SCHEMA catalog;
CREATE SCHEMA drey_meta;
CREATE SCHEMA idem;
CREATE SCHEMA jobs;
CREATE SCHEMA lease;
CREATE SCHEMA snapshot;
CREATE FUNCTION audit.refuse() RETURNS trigger
    LANGUAGE plpgsql
    AS $$
BEGIN
    RAISE EXCEPTION 'the audit trail is append-only: % is refused', lower(TG_OP)
        USING ERRCODE = 'insufficient_privilege';
END $$;
CREATE FUNCTION jobs.now_ns() RETURNS bigint
    LANGUAGE sql
    AS $$ SELECT (extract(epoch FROM clock_timestamp()) * 1000000)::bigint * 1000 $$;
CREATE FUNCTION snapshot.refuse() RETURNS trigger
    LANGUAGE plpgsql
    AS $$
BEGIN
    RAISE EXCEPTION 'snapshots are immutable: % of %.% is refused',
        lower(TG_OP), TG_TABLE_SCHEMA, TG_TABLE_NAME USING ERRCODE = 'insufficient_privilege';
END $$;
SET default_tablespace = '';
SET default_table_access_method = heap;
CREATE TABLE audit.entry (
    seq bigint NOT NULL,
    at_ns bigint NOT NULL,
    actor text NOT NULL,
    role text NOT NULL,
    action text NOT NULL,
    object text NOT NULL,
    request_id text NOT NULL,
    before text,
    after text,
    previous_hash bytea NOT NULL,
    hash bytea NOT NULL,
    CONSTRAINT entry_hash_check CHECK ((octet_length(hash) = 32)),
    CONSTRAINT entry_previous_hash_check CHECK ((octet_length(previous_hash) = 32))
);
CREATE TABLE catalog.channel (
    number bigint NOT NULL,
    pv_number bigint NOT NULL,
    role smallint NOT NULL,
    address text NOT NULL COLLATE pg_catalog."C",
    protocol smallint NOT NULL,
    create_time_ns bigint NOT NULL,
    retire_time_ns bigint DEFAULT 0 NOT NULL
);
CREATE TABLE catalog.pv (
    number bigint NOT NULL,
    id uuid NOT NULL,
    name text NOT NULL COLLATE pg_catalog."C",
    device text NOT NULL,
    description text NOT NULL,
    protocol smallint NOT NULL,
    read_only boolean NOT NULL,
    setpoint_channel bigint NOT NULL,
    readback_channel bigint NOT NULL,
    setpoint_address text NOT NULL COLLATE pg_catalog."C",
    readback_address text NOT NULL COLLATE pg_catalog."C",
    setpoint_absolute double precision NOT NULL,
    setpoint_relative double precision NOT NULL,
    readback_absolute double precision NOT NULL,
    readback_relative double precision NOT NULL,
    policy jsonb,
    tags integer[] NOT NULL,
    version bigint NOT NULL,
    create_time_ns bigint NOT NULL,
    update_time_ns bigint NOT NULL,
    delete_time_ns bigint DEFAULT 0 NOT NULL,
    CONSTRAINT pv_check CHECK (((setpoint_channel <> 0) OR (readback_channel <> 0))),
    CONSTRAINT pv_check1 CHECK (((setpoint_channel = 0) = (setpoint_address = ''::text))),
    CONSTRAINT pv_check2 CHECK (((readback_channel = 0) = (readback_address = ''::text))),
    CONSTRAINT pv_name_check CHECK ((name <> ''::text)),
    CONSTRAINT pv_readback_absolute_check CHECK (((readback_absolute >= (0)::double precision) AND (readback_absolute < 'Infinity'::double precision))),
    CONSTRAINT pv_readback_relative_check CHECK (((readback_relative >= (0)::double precision) AND (readback_relative < 'Infinity'::double precision))),
    CONSTRAINT pv_setpoint_absolute_check CHECK (((setpoint_absolute >= (0)::double precision) AND (setpoint_absolute < 'Infinity'::double precision))),
    CONSTRAINT pv_setpoint_relative_check CHECK (((setpoint_relative >= (0)::double precision) AND (setpoint_relative < 'Infinity'::double precision)))
);
CREATE TABLE catalog.tag (
    number integer NOT NULL,
    id uuid NOT NULL,
    group_id uuid CONSTRAINT tag_group_id_not_null1 NOT NULL,
    name text NOT NULL,
    folded text NOT NULL COLLATE pg_catalog."C",
    CONSTRAINT tag_name_check CHECK ((name <> ''::text))
);
CREATE TABLE catalog.tag_group (
    id uuid NOT NULL,
    name text NOT NULL,
    folded text NOT NULL COLLATE pg_catalog."C",
    description text NOT NULL,
    version bigint NOT NULL,
    CONSTRAINT tag_group_name_check CHECK ((name <> ''::text))
);
CREATE VIEW catalog.pv_tag AS
 SELECT pv.number AS pv_number,
    pv.name AS pv_name,
    g.name AS group_name,
    t.name AS tag_name
   FROM (((catalog.pv
     CROSS JOIN LATERAL unnest(pv.tags) carried(number))
     JOIN catalog.tag t ON ((t.number = carried.number)))
     JOIN catalog.tag_group g ON ((g.id = t.group_id)))
  WHERE (pv.delete_time_ns = 0);
CREATE TABLE catalog.version (
    one boolean DEFAULT true NOT NULL,
    version bigint NOT NULL,
    tags_version bigint NOT NULL,
    next_pv bigint NOT NULL,
    next_setpoint bigint NOT NULL,
    next_readback bigint NOT NULL,
    next_tag integer NOT NULL,
    CONSTRAINT version_one_check CHECK (one)
);
CREATE TABLE drey_meta.migration (
    package text NOT NULL,
    version integer NOT NULL,
    name text NOT NULL,
    checksum text NOT NULL,
    applied_at timestamp with time zone DEFAULT now() NOT NULL
);
CREATE TABLE idem.request (
    method text NOT NULL,
    principal text NOT NULL,
    request_id text NOT NULL,
    request_hash bytea NOT NULL,
    response bytea NOT NULL,
    create_time_ns bigint NOT NULL
);
CREATE TABLE jobs.job (
    id uuid NOT NULL,
    kind text NOT NULL,
    state text NOT NULL,
    principal text NOT NULL,
    role text NOT NULL,
    payload bytea NOT NULL,
    done bigint DEFAULT 0 NOT NULL,
    total bigint DEFAULT 0 NOT NULL,
    phase text DEFAULT ''::text NOT NULL,
    result text DEFAULT ''::text NOT NULL,
    error_reason integer DEFAULT 0 NOT NULL,
    error_field text DEFAULT ''::text NOT NULL,
    error_message text DEFAULT ''::text NOT NULL,
    attempts integer DEFAULT 0 NOT NULL,
    max_attempts integer DEFAULT 5 NOT NULL,
    rerun boolean DEFAULT true NOT NULL,
    owner text DEFAULT ''::text NOT NULL,
    term bigint DEFAULT 0 NOT NULL,
    lease_until_ns bigint DEFAULT 0 NOT NULL,
    not_before_ns bigint DEFAULT 0 NOT NULL,
    start_by_ns bigint DEFAULT 0 NOT NULL,
    cancel_requested boolean DEFAULT false NOT NULL,
    cancel_reason text DEFAULT ''::text NOT NULL,
    revision bigint DEFAULT 1 NOT NULL,
    create_time_ns bigint NOT NULL,
    start_time_ns bigint DEFAULT 0 NOT NULL,
    end_time_ns bigint DEFAULT 0 NOT NULL,
    trace_id text DEFAULT ''::text NOT NULL,
    traceparent text DEFAULT ''::text NOT NULL,
    CONSTRAINT job_state_check CHECK ((state = ANY (ARRAY['queued'::text, 'running'::text, 'succeeded'::text, 'failed'::text, 'cancelled'::text, 'interrupted'::text])))
)
WITH (fillfactor='70');
CREATE TABLE jobs.outbox (
    id bigint NOT NULL,
    subject text NOT NULL,
    payload bytea NOT NULL,
    durable boolean NOT NULL,
    message_id text DEFAULT ''::text NOT NULL,
    job_id uuid,
    traceparent text DEFAULT ''::text NOT NULL
);
ALTER TABLE jobs.outbox ALTER COLUMN id ADD GENERATED ALWAYS AS IDENTITY (
    SEQUENCE NAME jobs.outbox_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1
);
CREATE TABLE lease.epoch (
    name text NOT NULL,
    epoch bigint NOT NULL,
    holder text NOT NULL,
    acquire_time_ns bigint NOT NULL
);
CREATE TABLE snapshot.label (
    snapshot_no bigint NOT NULL,
    title text NOT NULL,
    comment text NOT NULL,
    labels text[] NOT NULL,
    golden boolean DEFAULT false NOT NULL,
    version bigint DEFAULT 1 NOT NULL,
    delete_time_ns bigint DEFAULT 0 NOT NULL
);
CREATE TABLE snapshot.manifest (
    page_no integer NOT NULL,
    snapshot_no bigint NOT NULL,
    value_hash bytea NOT NULL,
    times_hash bytea NOT NULL
);
CREATE TABLE snapshot.page (
    hash bytea NOT NULL,
    data bytea NOT NULL,
    CONSTRAINT page_hash_check CHECK ((octet_length(hash) = 32))
)
WITH (toast_tuple_target='8160');
ALTER TABLE ONLY snapshot.page ALTER COLUMN data SET STORAGE EXTERNAL;
CREATE TABLE snapshot.snapshot (
    no bigint NOT NULL,
    id uuid NOT NULL,
    job_id uuid,
    time_ns bigint NOT NULL,
    digest bytea NOT NULL,
    directory_hash bytea NOT NULL,
    catalog_version bigint NOT NULL,
    source smallint NOT NULL,
    principal text NOT NULL,
    role text NOT NULL,
    scope text NOT NULL,
    pv_count bigint NOT NULL,
    counts jsonb NOT NULL,
    skew jsonb NOT NULL,
    shards jsonb NOT NULL,
    duration_ns bigint NOT NULL,
    CONSTRAINT snapshot_digest_check CHECK ((octet_length(digest) = 32)),
    CONSTRAINT snapshot_directory_hash_check CHECK ((octet_length(directory_hash) = 32))
);
ALTER TABLE snapshot.snapshot ALTER COLUMN no ADD GENERATED ALWAYS AS IDENTITY (
    SEQUENCE NAME snapshot.snapshot_no_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1
);
INSERT INTO audit.entry VALUES
	(1, 1795647394793042511, 'tester', 'operator', 'pv.import', 'pvs', '', NULL, '{"added":40,"changed":0,"file":"","rows":40,"sha256":"4bcbd8208b550bfdbc9de7183a4a00dd03252dab1adcaf6a8ad7fa8f6ff4d3cb","unchanged":0}', '\x0000000000000000000000000000000000000000000000000000000000000000', '\x0407e4c64e6242701dc0ac95d9ebee5a58c7c76faad7e716a088efbb01880422'),
	(2, 1795647394834681483, 'tester', 'operator', 'snapshot.take', 'snapshots/01a214ec-d414-7981-b398-8d48b616fc32', '', NULL, '{"digest":"16426e2b9982abb489c716e5662d212f4f21c4297fecf8296fdb16b5120f92af","directory":"dbeb45c6b0a4f6ffc7c550a5d73615ddc14114a61f90f0202d09f1d90601c279","pvs":40,"source":"image","title":"before"}', '\x0407e4c64e6242701dc0ac95d9ebee5a58c7c76faad7e716a088efbb01880422', '\xf1d05a217fc78af5a15ca679413c0624c30b340107209d1d0807fb9ac820bbf1'),
	(3, 1795647394854697326, 'tester', 'operator', 'snapshot.take', 'snapshots/01a214ec-d427-7f04-93ed-1d28f20c462a', '', NULL, '{"digest":"c8716939541179811b395205a0f8524311dd4389cd10cd8f5622638ce47b667b","directory":"dbeb45c6b0a4f6ffc7c550a5d73615ddc14114a61f90f0202d09f1d90601c279","pvs":40,"source":"image","title":"golden run"}', '\xf1d05a217fc78af5a15ca679413c0624c30b340107209d1d0807fb9ac820bbf1', '\x329b767dd7600d17fb67156fac2a5ec8909b44b702be1f1cc00f8572bc7090d7'),
	(4, 1795647394865328449, 'tester', 'operator', 'pv.delete', 'pvs/01a214ec-d3e9-7a30-b2d7-6efc13d4df38', '', '{"device":"D2","name":"Q9:SP","number":10,"protocol":1,"readback_absolute":0.05,"readback_address":"Q9:RB","setpoint_absolute":0.001,"setpoint_address":"Q9:SP","tags":["Region/R0"]}', NULL, '\x329b767dd7600d17fb67156fac2a5ec8909b44b702be1f1cc00f8572bc7090d7', '\x9f285bf717b858f72244df59c617af446c6a39b6245b37ee609f00a6d3a3a0c0'),
	(5, 1795647394890949964, 'tester', 'operator', 'snapshot.take', 'snapshots/01a214ec-d44c-7de7-affd-53a42520d5ab', '', NULL, '{"digest":"8add7d6be70f2b12e4be59d967bd6a03ff5411641ee4ac0b5b7a5fa41d9d3193","directory":"1de33e678bbdf1bfd637c4ba7966ac405843a8d494a1e73563e5f88fa620cab7","pvs":39,"source":"image","title":"golden run"}', '\x9f285bf717b858f72244df59c617af446c6a39b6245b37ee609f00a6d3a3a0c0', '\x973fd94bcdd9b6cec8a86e4515575ad94d4bf4a24ce75794e02ddc0c069acbd2'),
	(6, 1795647394902297110, 'tester', 'operator', 'snapshot.take', 'snapshots/01a214ec-d457-7dec-86bb-2747b1a90fd2', '', NULL, '{"digest":"d884c9daceea6d2b3ae93c8e9593694bb87301899f924008ce9579952addf094","directory":"1de33e678bbdf1bfd637c4ba7966ac405843a8d494a1e73563e5f88fa620cab7","pvs":1,"source":"image","title":""}', '\x973fd94bcdd9b6cec8a86e4515575ad94d4bf4a24ce75794e02ddc0c069acbd2', '\x4abdbdac470305b1d8d810c34bdacc71aa737b1916e38b07ad8203caa96e7aa9'),
	(7, 1795647394910958316, 'tester', 'operator', 'snapshot.update', 'snapshots/01a214ec-d427-7f04-93ed-1d28f20c462a', '', '{"golden":false}', '{"golden":true}', '\x4abdbdac470305b1d8d810c34bdacc71aa737b1916e38b07ad8203caa96e7aa9', '\x4d4d2dafbe9e11fe85a6d26c89dce3e5acbb99618b6b04abf2f8dd62f758a5b4'),
	(8, 1795647394914805404, 'tester', 'operator', 'snapshot.update', 'snapshots/01a214ec-d44c-7de7-affd-53a42520d5ab', '', '{"golden":false}', '{"golden":true}', '\x4d4d2dafbe9e11fe85a6d26c89dce3e5acbb99618b6b04abf2f8dd62f758a5b4', '\x684ac07a76ed82d889fae315cf0f3a4d8f8647f2d4512cbc86996f857ee1d520'),
	(9, 1795647394918632020, 'tester', 'operator', 'snapshot.update', 'snapshots/01a214ec-d457-7dec-86bb-2747b1a90fd2', '', '{"golden":false}', '{"golden":true}', '\x684ac07a76ed82d889fae315cf0f3a4d8f8647f2d4512cbc86996f857ee1d520', '\x9f40c53b33b03acd87943503d3e0ac79b20cf4da4c8bee3d19a993892488d4ca'),
	(10, 1795647394924374716, 'tester', 'operator', 'snapshot.take', 'snapshots/01a214ec-d46e-71b0-b5a2-60165b72ce46', '', NULL, '{"digest":"0a84d216ac8269c47de3cc56e578f0bf1846ec73e9c62f692797d620f7b9a353","directory":"1de33e678bbdf1bfd637c4ba7966ac405843a8d494a1e73563e5f88fa620cab7","pvs":1,"source":"image","title":"deleted"}', '\x9f40c53b33b03acd87943503d3e0ac79b20cf4da4c8bee3d19a993892488d4ca', '\xcd7bcf69fad048904d43a736485e7400f5313d9164ecbc8eb84de3f1926544a4'),
	(11, 1795647394934083797, 'tester', 'operator', 'snapshot.delete', 'snapshots/01a214ec-d46e-71b0-b5a2-60165b72ce46', '', '{}', '{"delete_time_ns":1795647394933822435}', '\xcd7bcf69fad048904d43a736485e7400f5313d9164ecbc8eb84de3f1926544a4', '\xb3b2fa725449da349284fea82360cd48dc99bd31eda7e49d141e60a3c8cfaedb');
INSERT INTO catalog.channel VALUES
	(256, 1, 1, 'Q0:SP', 1, 1795647394793042511, 0),
	(257, 2, 1, 'Q0:RB', 1, 1795647394793042511, 0),
	(258, 3, 1, 'Q1:SP', 1, 1795647394793042511, 0),
	(259, 4, 1, 'Q1:RB', 1, 1795647394793042511, 0),
	(260, 5, 1, 'Q2:SP', 1, 1795647394793042511, 0),
	(261, 6, 1, 'Q2:RB', 1, 1795647394793042511, 0),
	(262, 7, 1, 'Q3:SP', 1, 1795647394793042511, 0),
	(263, 8, 1, 'Q3:RB', 1, 1795647394793042511, 0),
	(264, 9, 1, 'Q4:SP', 1, 1795647394793042511, 0),
	(266, 11, 1, 'Q5:SP', 1, 1795647394793042511, 0),
	(267, 12, 1, 'Q5:RB', 1, 1795647394793042511, 0),
	(268, 13, 1, 'Q6:SP', 1, 1795647394793042511, 0),
	(269, 14, 1, 'Q6:RB', 1, 1795647394793042511, 0),
	(270, 15, 1, 'Q7:SP', 1, 1795647394793042511, 0),
	(271, 16, 1, 'Q7:RB', 1, 1795647394793042511, 0),
	(272, 17, 1, 'Q8:SP', 1, 1795647394793042511, 0),
	(273, 18, 1, 'Q8:RB', 1, 1795647394793042511, 0),
	(274, 19, 1, 'Q9:SP', 1, 1795647394793042511, 0),
	(275, 20, 1, 'Q9:RB', 1, 1795647394793042511, 0),
	(276, 21, 1, 'Q10:SP', 1, 1795647394793042511, 0),
	(277, 22, 1, 'Q10:RB', 1, 1795647394793042511, 0),
	(278, 23, 1, 'Q11:SP', 1, 1795647394793042511, 0),
	(279, 24, 1, 'Q11:RB', 1, 1795647394793042511, 0),
	(280, 25, 1, 'Q12:SP', 1, 1795647394793042511, 0),
	(281, 26, 1, 'Q12:RB', 1, 1795647394793042511, 0),
	(282, 27, 1, 'Q13:SP', 1, 1795647394793042511, 0),
	(283, 28, 1, 'Q13:RB', 1, 1795647394793042511, 0),
	(284, 29, 1, 'Q14:SP', 1, 1795647394793042511, 0),
	(285, 30, 1, 'Q14:RB', 1, 1795647394793042511, 0),
	(286, 31, 1, 'Q15:SP', 1, 1795647394793042511, 0),
	(287, 32, 1, 'Q15:RB', 1, 1795647394793042511, 0),
	(288, 33, 1, 'Q16:SP', 1, 1795647394793042511, 0),
	(289, 34, 1, 'Q16:RB', 1, 1795647394793042511, 0),
	(290, 35, 1, 'Q17:SP', 1, 1795647394793042511, 0),
	(291, 36, 1, 'Q17:RB', 1, 1795647394793042511, 0),
	(292, 37, 1, 'Q18:SP', 1, 1795647394793042511, 0),
	(293, 38, 1, 'Q18:RB', 1, 1795647394793042511, 0),
	(294, 39, 1, 'Q19:SP', 1, 1795647394793042511, 0),
	(295, 40, 1, 'Q19:RB', 1, 1795647394793042511, 0),
	(512, 1, 2, 'Q20:SP', 1, 1795647394793042511, 0),
	(513, 2, 2, 'Q20:RB', 1, 1795647394793042511, 0),
	(514, 3, 2, 'Q21:SP', 1, 1795647394793042511, 0),
	(515, 4, 2, 'Q21:RB', 1, 1795647394793042511, 0),
	(516, 5, 2, 'Q22:SP', 1, 1795647394793042511, 0),
	(517, 6, 2, 'Q22:RB', 1, 1795647394793042511, 0),
	(518, 7, 2, 'Q23:SP', 1, 1795647394793042511, 0),
	(519, 8, 2, 'Q23:RB', 1, 1795647394793042511, 0),
	(520, 9, 2, 'Q24:SP', 1, 1795647394793042511, 0),
	(522, 11, 2, 'Q25:SP', 1, 1795647394793042511, 0),
	(523, 12, 2, 'Q25:RB', 1, 1795647394793042511, 0);
INSERT INTO catalog.channel VALUES
	(524, 13, 2, 'Q26:SP', 1, 1795647394793042511, 0),
	(525, 14, 2, 'Q26:RB', 1, 1795647394793042511, 0),
	(526, 15, 2, 'Q27:SP', 1, 1795647394793042511, 0),
	(527, 16, 2, 'Q27:RB', 1, 1795647394793042511, 0),
	(528, 17, 2, 'Q28:SP', 1, 1795647394793042511, 0),
	(529, 18, 2, 'Q28:RB', 1, 1795647394793042511, 0),
	(530, 19, 2, 'Q29:SP', 1, 1795647394793042511, 0),
	(531, 20, 2, 'Q29:RB', 1, 1795647394793042511, 0),
	(532, 21, 2, 'Q30:SP', 1, 1795647394793042511, 0),
	(533, 22, 2, 'Q30:RB', 1, 1795647394793042511, 0),
	(534, 23, 2, 'Q31:SP', 1, 1795647394793042511, 0),
	(535, 24, 2, 'Q31:RB', 1, 1795647394793042511, 0),
	(536, 25, 2, 'Q32:SP', 1, 1795647394793042511, 0),
	(537, 26, 2, 'Q32:RB', 1, 1795647394793042511, 0),
	(538, 27, 2, 'Q33:SP', 1, 1795647394793042511, 0),
	(539, 28, 2, 'Q33:RB', 1, 1795647394793042511, 0),
	(540, 29, 2, 'Q34:SP', 1, 1795647394793042511, 0),
	(541, 30, 2, 'Q34:RB', 1, 1795647394793042511, 0),
	(542, 31, 2, 'Q35:SP', 1, 1795647394793042511, 0),
	(543, 32, 2, 'Q35:RB', 1, 1795647394793042511, 0),
	(544, 33, 2, 'Q36:SP', 1, 1795647394793042511, 0),
	(545, 34, 2, 'Q36:RB', 1, 1795647394793042511, 0),
	(546, 35, 2, 'Q37:SP', 1, 1795647394793042511, 0),
	(547, 36, 2, 'Q37:RB', 1, 1795647394793042511, 0),
	(548, 37, 2, 'Q38:SP', 1, 1795647394793042511, 0),
	(549, 38, 2, 'Q38:RB', 1, 1795647394793042511, 0),
	(550, 39, 2, 'Q39:SP', 1, 1795647394793042511, 0),
	(551, 40, 2, 'Q39:RB', 1, 1795647394793042511, 0),
	(265, 10, 1, 'Q4:RB', 1, 1795647394793042511, 1795647394865328449),
	(521, 10, 2, 'Q24:RB', 1, 1795647394793042511, 1795647394865328449);
INSERT INTO catalog.pv VALUES
	(1, '01a214ec-d3e9-7a27-8b72-9cc695287130', 'Q0:SP', 'D0', '', 1, false, 256, 512, 'Q0:SP', 'Q0:RB', 0.001, 0, 0.05, 0, NULL, '{1}', 2, 1795647394793042511, 1795647394793042511, 0),
	(2, '01a214ec-d3e9-7a28-aad5-1aa726563d74', 'Q1:SP', 'D0', '', 1, false, 257, 513, 'Q1:SP', 'Q1:RB', 0.001, 0, 0.05, 0, NULL, '{2}', 2, 1795647394793042511, 1795647394793042511, 0),
	(3, '01a214ec-d3e9-7a29-a58f-5e9646a646d0', 'Q2:SP', 'D0', '', 1, false, 258, 514, 'Q2:SP', 'Q2:RB', 0.001, 0, 0.05, 0, NULL, '{3}', 2, 1795647394793042511, 1795647394793042511, 0),
	(4, '01a214ec-d3e9-7a2a-8a88-e5e1d70a6127', 'Q3:SP', 'D0', '', 1, false, 259, 515, 'Q3:SP', 'Q3:RB', 0.001, 0, 0.05, 0, NULL, '{1}', 2, 1795647394793042511, 1795647394793042511, 0),
	(5, '01a214ec-d3e9-7a2b-ae62-faa9e3b063c7', 'Q4:SP', 'D1', '', 1, false, 260, 516, 'Q4:SP', 'Q4:RB', 0.001, 0, 0.05, 0, NULL, '{2}', 2, 1795647394793042511, 1795647394793042511, 0),
	(6, '01a214ec-d3e9-7a2c-95e6-89f0e407b020', 'Q5:SP', 'D1', '', 1, false, 261, 517, 'Q5:SP', 'Q5:RB', 0.001, 0, 0.05, 0, NULL, '{3}', 2, 1795647394793042511, 1795647394793042511, 0),
	(7, '01a214ec-d3e9-7a2d-aa60-99e993c4fc0f', 'Q6:SP', 'D1', '', 1, false, 262, 518, 'Q6:SP', 'Q6:RB', 0.001, 0, 0.05, 0, NULL, '{1}', 2, 1795647394793042511, 1795647394793042511, 0),
	(8, '01a214ec-d3e9-7a2e-ba0d-a66bba9b485e', 'Q7:SP', 'D1', '', 1, false, 263, 519, 'Q7:SP', 'Q7:RB', 0.001, 0, 0.05, 0, NULL, '{2}', 2, 1795647394793042511, 1795647394793042511, 0),
	(9, '01a214ec-d3e9-7a2f-b202-35f6876245dd', 'Q8:SP', 'D2', '', 1, false, 264, 520, 'Q8:SP', 'Q8:RB', 0.001, 0, 0.05, 0, NULL, '{3}', 2, 1795647394793042511, 1795647394793042511, 0),
	(11, '01a214ec-d3e9-7a31-b56a-46757127b8cc', 'Q10:SP', 'D2', '', 1, false, 266, 522, 'Q10:SP', 'Q10:RB', 0.001, 0, 0.05, 0, NULL, '{2}', 2, 1795647394793042511, 1795647394793042511, 0),
	(12, '01a214ec-d3e9-7a32-bf5e-b3a45def7be1', 'Q11:SP', 'D2', '', 1, false, 267, 523, 'Q11:SP', 'Q11:RB', 0.001, 0, 0.05, 0, NULL, '{3}', 2, 1795647394793042511, 1795647394793042511, 0),
	(13, '01a214ec-d3e9-7a33-a17a-dda563db2194', 'Q12:SP', 'D3', '', 1, false, 268, 524, 'Q12:SP', 'Q12:RB', 0.001, 0, 0.05, 0, NULL, '{1}', 2, 1795647394793042511, 1795647394793042511, 0),
	(14, '01a214ec-d3e9-7a34-ae23-dc0b665cc573', 'Q13:SP', 'D3', '', 1, false, 269, 525, 'Q13:SP', 'Q13:RB', 0.001, 0, 0.05, 0, NULL, '{2}', 2, 1795647394793042511, 1795647394793042511, 0),
	(15, '01a214ec-d3e9-7a35-9b16-897179a42cfd', 'Q14:SP', 'D3', '', 1, false, 270, 526, 'Q14:SP', 'Q14:RB', 0.001, 0, 0.05, 0, NULL, '{3}', 2, 1795647394793042511, 1795647394793042511, 0),
	(16, '01a214ec-d3e9-7a36-add2-6ae70067638a', 'Q15:SP', 'D3', '', 1, false, 271, 527, 'Q15:SP', 'Q15:RB', 0.001, 0, 0.05, 0, NULL, '{1}', 2, 1795647394793042511, 1795647394793042511, 0),
	(17, '01a214ec-d3e9-7a37-98eb-1f6204632fa8', 'Q16:SP', 'D4', '', 1, false, 272, 528, 'Q16:SP', 'Q16:RB', 0.001, 0, 0.05, 0, NULL, '{2}', 2, 1795647394793042511, 1795647394793042511, 0),
	(18, '01a214ec-d3e9-7a38-8e2a-1d1f53f9ec47', 'Q17:SP', 'D4', '', 1, false, 273, 529, 'Q17:SP', 'Q17:RB', 0.001, 0, 0.05, 0, NULL, '{3}', 2, 1795647394793042511, 1795647394793042511, 0),
	(19, '01a214ec-d3e9-7a39-968d-e6b757fde153', 'Q18:SP', 'D4', '', 1, false, 274, 530, 'Q18:SP', 'Q18:RB', 0.001, 0, 0.05, 0, NULL, '{1}', 2, 1795647394793042511, 1795647394793042511, 0),
	(20, '01a214ec-d3e9-7a3a-9732-f74d452b2ec3', 'Q19:SP', 'D4', '', 1, false, 275, 531, 'Q19:SP', 'Q19:RB', 0.001, 0, 0.05, 0, NULL, '{2}', 2, 1795647394793042511, 1795647394793042511, 0),
	(21, '01a214ec-d3e9-7a3b-9bd8-aec8633e69bc', 'Q20:SP', 'D5', '', 1, false, 276, 532, 'Q20:SP', 'Q20:RB', 0.001, 0, 0.05, 0, NULL, '{3}', 2, 1795647394793042511, 1795647394793042511, 0),
	(22, '01a214ec-d3e9-7a3c-9b9a-166281e93937', 'Q21:SP', 'D5', '', 1, false, 277, 533, 'Q21:SP', 'Q21:RB', 0.001, 0, 0.05, 0, NULL, '{1}', 2, 1795647394793042511, 1795647394793042511, 0),
	(23, '01a214ec-d3e9-7a3d-a86b-958f609bd8ce', 'Q22:SP', 'D5', '', 1, false, 278, 534, 'Q22:SP', 'Q22:RB', 0.001, 0, 0.05, 0, NULL, '{2}', 2, 1795647394793042511, 1795647394793042511, 0),
	(24, '01a214ec-d3e9-7a3e-9082-7632f52a4976', 'Q23:SP', 'D5', '', 1, false, 279, 535, 'Q23:SP', 'Q23:RB', 0.001, 0, 0.05, 0, NULL, '{3}', 2, 1795647394793042511, 1795647394793042511, 0),
	(25, '01a214ec-d3e9-7a3f-b457-4d727596b973', 'Q24:SP', 'D6', '', 1, false, 280, 536, 'Q24:SP', 'Q24:RB', 0.001, 0, 0.05, 0, NULL, '{1}', 2, 1795647394793042511, 1795647394793042511, 0),
	(26, '01a214ec-d3e9-7a40-a033-3503da5c2f03', 'Q25:SP', 'D6', '', 1, false, 281, 537, 'Q25:SP', 'Q25:RB', 0.001, 0, 0.05, 0, NULL, '{2}', 2, 1795647394793042511, 1795647394793042511, 0),
	(27, '01a214ec-d3e9-7a41-b39a-e188ea91b358', 'Q26:SP', 'D6', '', 1, false, 282, 538, 'Q26:SP', 'Q26:RB', 0.001, 0, 0.05, 0, NULL, '{3}', 2, 1795647394793042511, 1795647394793042511, 0),
	(28, '01a214ec-d3e9-7a42-985e-79b05a4cb874', 'Q27:SP', 'D6', '', 1, false, 283, 539, 'Q27:SP', 'Q27:RB', 0.001, 0, 0.05, 0, NULL, '{1}', 2, 1795647394793042511, 1795647394793042511, 0),
	(29, '01a214ec-d3e9-7a43-97f0-bdfcd656b8f7', 'Q28:SP', 'D7', '', 1, false, 284, 540, 'Q28:SP', 'Q28:RB', 0.001, 0, 0.05, 0, NULL, '{2}', 2, 1795647394793042511, 1795647394793042511, 0),
	(30, '01a214ec-d3e9-7a44-8b6c-2ce9732e6cf6', 'Q29:SP', 'D7', '', 1, false, 285, 541, 'Q29:SP', 'Q29:RB', 0.001, 0, 0.05, 0, NULL, '{3}', 2, 1795647394793042511, 1795647394793042511, 0),
	(31, '01a214ec-d3e9-7a45-bea0-a4946bd18452', 'Q30:SP', 'D7', '', 1, false, 286, 542, 'Q30:SP', 'Q30:RB', 0.001, 0, 0.05, 0, NULL, '{1}', 2, 1795647394793042511, 1795647394793042511, 0),
	(32, '01a214ec-d3e9-7a46-ac37-b5e579509f33', 'Q31:SP', 'D7', '', 1, false, 287, 543, 'Q31:SP', 'Q31:RB', 0.001, 0, 0.05, 0, NULL, '{2}', 2, 1795647394793042511, 1795647394793042511, 0),
	(33, '01a214ec-d3e9-7a47-8c76-e6e9328e2ca8', 'Q32:SP', 'D8', '', 1, false, 288, 544, 'Q32:SP', 'Q32:RB', 0.001, 0, 0.05, 0, NULL, '{3}', 2, 1795647394793042511, 1795647394793042511, 0),
	(34, '01a214ec-d3e9-7a48-abe1-e1a673cb6602', 'Q33:SP', 'D8', '', 1, false, 289, 545, 'Q33:SP', 'Q33:RB', 0.001, 0, 0.05, 0, NULL, '{1}', 2, 1795647394793042511, 1795647394793042511, 0),
	(35, '01a214ec-d3e9-7a49-98a8-57d5dc6b2946', 'Q34:SP', 'D8', '', 1, false, 290, 546, 'Q34:SP', 'Q34:RB', 0.001, 0, 0.05, 0, NULL, '{2}', 2, 1795647394793042511, 1795647394793042511, 0),
	(36, '01a214ec-d3e9-7a4a-8e6e-12b39427e71f', 'Q35:SP', 'D8', '', 1, false, 291, 547, 'Q35:SP', 'Q35:RB', 0.001, 0, 0.05, 0, NULL, '{3}', 2, 1795647394793042511, 1795647394793042511, 0),
	(37, '01a214ec-d3e9-7a4b-8e09-6ca581c4f051', 'Q36:SP', 'D9', '', 1, false, 292, 548, 'Q36:SP', 'Q36:RB', 0.001, 0, 0.05, 0, NULL, '{1}', 2, 1795647394793042511, 1795647394793042511, 0),
	(38, '01a214ec-d3e9-7a4c-a4e8-0bb711ffbeba', 'Q37:SP', 'D9', '', 1, false, 293, 549, 'Q37:SP', 'Q37:RB', 0.001, 0, 0.05, 0, NULL, '{2}', 2, 1795647394793042511, 1795647394793042511, 0),
	(39, '01a214ec-d3e9-7a4d-bf64-96b24a833c2a', 'Q38:SP', 'D9', '', 1, false, 294, 550, 'Q38:SP', 'Q38:RB', 0.001, 0, 0.05, 0, NULL, '{3}', 2, 1795647394793042511, 1795647394793042511, 0),
	(40, '01a214ec-d3e9-7a4e-a48c-cd78f1228960', 'Q39:SP', 'D9', '', 1, false, 295, 551, 'Q39:SP', 'Q39:RB', 0.001, 0, 0.05, 0, NULL, '{1}', 2, 1795647394793042511, 1795647394793042511, 0),
	(10, '01a214ec-d3e9-7a30-b2d7-6efc13d4df38', 'Q9:SP', 'D2', '', 1, false, 265, 521, 'Q9:SP', 'Q9:RB', 0.001, 0, 0.05, 0, NULL, '{1}', 3, 1795647394793042511, 1795647394865328449, 1795647394865328449);
INSERT INTO catalog.tag VALUES
	(1, '01a214ec-d3e9-76fd-ad9b-e4a881598537', '01a214ec-d3e9-7667-836c-3f8c83044f20', 'R0', 'r0'),
	(2, '01a214ec-d3e9-778c-93cc-64dbd4ca7cd4', '01a214ec-d3e9-7667-836c-3f8c83044f20', 'R1', 'r1'),
	(3, '01a214ec-d3e9-77b9-b7d5-da55cf02b939', '01a214ec-d3e9-7667-836c-3f8c83044f20', 'R2', 'r2');
INSERT INTO catalog.tag_group VALUES
	('01a214ec-d3e9-7667-836c-3f8c83044f20', 'Region', 'region', '', 2);
INSERT INTO catalog.version VALUES
	(true, 3, 2, 41, 40, 40, 4);
INSERT INTO drey_meta.migration VALUES
	('drey_runtime', 1, 'runtime', 'bcbb34dd134ac8307f52ed89a52f64f6d3d1afa92cf30a7a667010c4936a015b', '2026-11-25 22:56:34.450837+00'),
	('drey_snapshot', 1, 'catalog', 'e935d9a1d93a70be8d3a2322edc2b2f83f2888c571d40878b51659942338c557', '2026-11-25 22:56:34.459709+00'),
	('drey_snapshot', 2, 'snapshot', '529fc20a375f19e31fae19a7e74e226fd6c6933cdf35d375ea68caabe0e221ed', '2026-11-25 22:56:34.468541+00');
INSERT INTO jobs.job VALUES
	('01a214ec-d3ea-750c-96d2-f2e83a6167a0', 'import', 'succeeded', 'tester', 'operator', '\x', 40, 40, '', 'pvs', 0, '', '', 1, 5, true, '', 0, 0, 0, 0, false, '', 1, 1795647394791658613, 1795647394791658613, 1795647394794330855, '', ''),
	('01a214ec-d40c-7bc7-9406-ff5950ffcd81', 'snapshot', 'succeeded', 'tester', 'operator', '\x0a02080122066265666f72652a05666972737432056e69676874', 40, 40, 'storing', 'snapshots/01a214ec-d414-7981-b398-8d48b616fc32', 0, '', '', 1, 5, true, 'vm:32126', 1, 0, 0, 0, false, '', 2, 1795647394828733921, 1795647394828733921, 1795647394846466866, '', ''),
	('01a214ec-d426-7584-8d5c-2889ab3c3958', 'snapshot', 'succeeded', 'tester', 'operator', '\x0a020801220a676f6c64656e2072756e3204676f6f6432056e69676874', 40, 40, 'storing', 'snapshots/01a214ec-d427-7f04-93ed-1d28f20c462a', 0, '', '', 1, 5, true, 'vm:32126', 1, 0, 0, 0, false, '', 2, 1795647394854341839, 1795647394854341839, 1795647394857432376, '', ''),
	('01a214ec-d449-7b17-a4b6-0a623d3562d1', 'snapshot', 'succeeded', 'tester', 'operator', '\x0a0208011a021801220a676f6c64656e2072756e', 39, 39, 'storing', 'snapshots/01a214ec-d44c-7de7-affd-53a42520d5ab', 0, '', '', 1, 5, true, 'vm:32126', 1, 0, 0, 0, false, '', 2, 1795647394889691357, 1795647394889691357, 1795647394894950054, '', ''),
	('01a214ec-d454-736f-83a0-91c82e1bfa2c', 'snapshot', 'succeeded', 'tester', 'operator', '\x0a07120551313a5350', 1, 1, 'storing', 'snapshots/01a214ec-d457-7dec-86bb-2747b1a90fd2', 0, '', '', 1, 5, true, 'vm:32126', 1, 0, 0, 0, false, '', 2, 1795647394900213660, 1795647394900213660, 1795647394905953167, '', ''),
	('01a214ec-d46b-7ad3-9b0f-0cc36f351259', 'snapshot', 'succeeded', 'tester', 'operator', '\x0a07120551323a5350220764656c65746564', 1, 1, 'storing', 'snapshots/01a214ec-d46e-71b0-b5a2-60165b72ce46', 0, '', '', 1, 5, true, 'vm:32126', 1, 0, 0, 0, false, '', 2, 1795647394923675791, 1795647394923675791, 1795647394929164618, '', '');
INSERT INTO jobs.outbox OVERRIDING SYSTEM VALUE VALUES
	(1, 'work.snapshot', '\x0a2430316132313465632d643430632d376263372d393430362d666635393530666663643831', true, '01a214ec-d40c-7bc7-9406-ff5950ffcd81', '01a214ec-d40c-7bc7-9406-ff5950ffcd81', ''),
	(2, 'work.snapshot', '\x0a2430316132313465632d643432362d373538342d386435632d323838396162336333393538', true, '01a214ec-d426-7584-8d5c-2889ab3c3958', '01a214ec-d426-7584-8d5c-2889ab3c3958', ''),
	(3, 'work.snapshot', '\x0a2430316132313465632d643434392d376231372d613462362d306136323364333536326431', true, '01a214ec-d449-7b17-a4b6-0a623d3562d1', '01a214ec-d449-7b17-a4b6-0a623d3562d1', ''),
	(4, 'work.snapshot', '\x0a2430316132313465632d643435342d373336662d383361302d393163383265316266613263', true, '01a214ec-d454-736f-83a0-91c82e1bfa2c', '01a214ec-d454-736f-83a0-91c82e1bfa2c', ''),
	(5, 'work.snapshot', '\x0a2430316132313465632d643436622d376164332d396230662d306363333666333531323539', true, '01a214ec-d46b-7ad3-9b0f-0cc36f351259', '01a214ec-d46b-7ad3-9b0f-0cc36f351259', '');
INSERT INTO snapshot.label VALUES
	(1, 'before', 'first', '{night}', false, 1, 0),
	(2, 'golden run', '', '{good,night}', true, 2, 0),
	(3, 'golden run', '', '{}', true, 2, 0),
	(4, '', '', '{}', true, 2, 0),
	(5, 'deleted', '', '{}', false, 2, 1795647394933822435);
INSERT INTO snapshot.manifest VALUES
	(1, 1, '\x72052ebde3cb192a2c56659292d34d3364d0ea927e937c6308e3a6b14a3ed9a4', '\xc2cb2e318fd3a2fdbf43ebc1f0f3c0a726b5c3a14481fa98167478444a172964'),
	(2, 1, '\xdbc3f6cc7801cd1a9ef28d6a85d9bc98a9b99d91b0daa80b0838644926ef6215', '\xc2cb2e318fd3a2fdbf43ebc1f0f3c0a726b5c3a14481fa98167478444a172964'),
	(1, 2, '\xe093416389446f5c13a0639f6991867625512c5b0f1b2d3b94c4e8ddb5853f12', '\xc2cb2e318fd3a2fdbf43ebc1f0f3c0a726b5c3a14481fa98167478444a172964'),
	(2, 2, '\xdbc3f6cc7801cd1a9ef28d6a85d9bc98a9b99d91b0daa80b0838644926ef6215', '\xc2cb2e318fd3a2fdbf43ebc1f0f3c0a726b5c3a14481fa98167478444a172964'),
	(1, 3, '\x0169cf9dc50bb825fbafb523174c8772cb4dde82e276892b05cd853ab4d95874', '\x1cde714d74905f32a0c43f3f8e6060fca76f7634b433a779e62b6b0e7806ee6b'),
	(2, 3, '\xcc00e5d92adcfa21f5af38fbf602e7326d1e370272317fd01354a745f3b67462', '\x1cde714d74905f32a0c43f3f8e6060fca76f7634b433a779e62b6b0e7806ee6b'),
	(1, 4, '\x8536e8fcc29644eca77570830b28836d1c8aa0da751a8a08cb6cd3c9af3ab33a', '\xfd48db520b879b621600699d17114d8ae7d58036c7acd15e045665b7551ce349'),
	(2, 4, '\xb8214f21d844c3c2dce2f4c2ed4c9052c44f50a0ff51b3cfee81a875809f9a14', '\xfd48db520b879b621600699d17114d8ae7d58036c7acd15e045665b7551ce349'),
	(1, 5, '\x8b47789d002d4f760b18778be3fffe4595eeb8a01db96ef7420e9497428c2245', '\x5975843a99e1dacc79dc7177fd8f9799aab60d1403368a6fde6ab452ee8756d5'),
	(2, 5, '\x38037c79f497a2e191de6f6935b67ffdc583f8b9eeaea773958e1cd4e03fc51e', '\x5975843a99e1dacc79dc7177fd8f9799aab60d1403368a6fde6ab452ee8756d5');
INSERT INTO snapshot.page VALUES
	('\x2ebe7f4d45d02ec7bb76c00051461bfb55bd5680e2bfbb0cbd798aaa7bd2d84d', '\x0128b52ffd6030222d0b0006d03429406fd318c33a571537ac8aa2e8671bac180bba262242b6143957c3f5839497cbc8a81a4a1f078afd5328002c00250015533cb1c4952386f861871b667861ca0a3b278cf0c106174cf0c093057637070c705be26094360911f434711b0b93a99e6d2c07ab4046b22ccb321107cb1bf6b1a461961b56d9e38e39de58e38c2d637cb1c50157f56c735955555555353333333313d7e13a5c87eb701daec375b80ed7e13a0b93a9a8490a5f539314414f139f90763d4911f434f1516a9222e869e293d42445d0d3c48b7555d42445d0d3c46d2e56808da8209e520aad01b08354ae011288615be32448f1ff4ebea20ea90eee38ce79efa1c7b7d7d5cc73c2e5647b5b4262a725c0031c624d205d6a01d6a5a65e8d21aabd893e403821792243127cc40224f8870b47fc0d058cf82f0452222e5273a9c93707708300ac6fb4017e9124809ab9c45753ab89a7aa2667d86ba59700202218896002814848021099c0f00276'),
	('\x4fe093dc6bb7770add59e0749ccaec9e9e39dffd4fca26ad7f4f2df332e61d1b', '\x0128b52ffd601551f50600f6a1261ba027190e7355555f555567a6aa2fc8e30f799ecbf337faa31d92641f001a001a00dbb66ddbb66ddbb66ddbb66ddbb66ddbb66ddbb66ddbb6ad60088132830208dbb66ddbb66ddbb66ddbb66ddbb66ddbb66ddbb66ddbb66ddb16dbb66ddbb66ddbb66ddbb66ddbb66ddbb66ddbb66ddbb66ddb163114178947c3019941449239189629b46ddbb66ddbb66ddbb66ddbb66ddbb66ddbb66ddb16810aa81120f0d201d1876c8c011270affcffff27690dfb51b4409f07aa7e2dffa076ffed6f3117540e8a1f8af6ff0dc200bf5f8d269546934aa3c937abf2c34815'),
	('\x72052ebde3cb192a2c56659292d34d3364d0ea927e937c6308e3a6b14a3ed9a4', '\x0128b52ffd600014750c0044130c0c0b000300060075004c00b600ca006b00eb00180001e835c67fd7c572a03580457f7699af7c041eb38e68d3cc44cecc2e40f17bb01abab0e6dac21c00ac151178b0d72da14bf2f15286f589f2354d1f56372821460a42988c51e8d036cd49a92ef75d0013754ddf93c7ece668514a9a5401c12821700e3ea642c1aeeb6897d4154d5c38608028129eaf0036670d325ccdd3ba011d60a290456d90d3110433131e26a6618abf0182d116803007142ef27300981a4798004f86cae0ed4e7e203b16e4361f136f0109dcd72a09427115ee58dee69b48d7188500854aa251d90e3a69bc55694a1bf1c73e8cb80e8f2d2bf19c7a1c5dbb79cce1882a93b399bfcd00406056464a4d423d064b5230484d0f3d5339ea3b60597067314535356a5b42695050496430250040c04040c040c0c0c03fc0402100d58045012400165586a19c0316bc1550e45640915b01456e0514b91550e45640115801a5ab8012a03c2aa018500a155007948c0a2801caa3028a01a550017540c9a88012a03c2aa018500a75501d50322aa084070c01'),
	('\xa06ee0c5cb1950f743b7d1ea6a32f4c94eb3c7f1770dacce93a555ee6f1e3c5e', '\x0128b52ffd603151c5070026e32b21a027590e7355555f555567a6037932ecf23cfe90e76562b12647d2c83c4823320521001b001b00dbb66ddbb66ddbb66ddbb66ddbb66ddbb66ddbb66ddbb66d5b9c86625990c308116ddbb66ddbb66ddbb66ddbb66ddbb66ddbb66ddbb66ddbb66ddb16dbb66ddbb66ddbb66ddbb66ddbb66ddbb66ddbb66ddbb66ddbb60d090da2304c735012083b3158301081c0c28102c339010dc90178841cc7b66ddbb66ddbb66ddbb66ddbb66ddbb66ddb16810ba81120ec9265cfd1876c8c011250afa8fcffff485a03fd3bf6a3689e3e0f69fd5afe41edfedbdf722ea876293f148dfa1b8401be2662318b55ac6215abd837fbebc3881a'),
	('\xb45aa3d21eb52c959e37c34098925047cd0833459d985a17217d33e8633eec2e', '\x0128b52ffd603022b50a00420f3132506d920ed0c8cc2c3133338dcccc4cd8cd4c23d3b0f61f1863abdefeffffbd3f81f8c8c14fe03323fe293e41d8c18a7e4b0193067d3c1dce06cf342114d26ddbb66ddbb66ddbb66ddbb66ddbb61d11111111f1eeeeeeeece72592ecb65b92c97e5b25c96cb72592ed1a814027d3c1dce06cfb2221a95429aac88a82a04321a1129312139a1aafbbffac83c512acc1e77ccf1c61a679c19e38b2dae98e28925c61c31c40f3bdc30c30b5f56983a61840f36b8608207b62cf0ba72c000539ea8ea3259028093a820644ea535a08394161a031248218b254682ccff2bf98a3aa98e6186e7ddf38083ff8bd592f556b20946d2fe3c12ac740a9e74925d6d643228fe7a2532dcd4d4124d47540d91f543d80ea11b9266687aa16a0ae45470979bd8d38204047f634f34e0bc200550332e396be4761c50f2ff0611ea7be10c2bb3c3eebfffdfffe7efbfffdfffcfefbfffffacbe03'),
	('\xc2cb2e318fd3a2fdbf43ebc1f0f3c0a726b5c3a14481fa98167478444a172964', '\x0128b52ffd600008c501009806060075004c00b600ca006b00eb0018000100121000544a9447a59852a8d429199512e55129a6142a754a46a54479548a29854add0f16'),
	('\xdbc3f6cc7801cd1a9ef28d6a85d9bc98a9b99d91b0daa80b0838644926ef6215', '\x0128b52ffd6000140d0d0084140b0b000300060075004c00b600ca006b00eb001800bbb7a856520dc42291949d14f2cf6fd34e6cac917658cbc4a3c74253f19de2907d0e00ec83a20660007891c639d9e0cfe128f685008d14f3d2919d90ed2456862890f694f4b06bc95321dbe9bdc8268ef7000d0a7c29643c90867f1972910c0bcaf9cb6e9258d1021e1fc803b81e4add7361f954afbab4a36018009b90d60f1f23b481aef0b9671aa7c18010d92e94c6520600312593c99cf597ed9c4916d2d68718b1000da645696cbb0f88f977dbac936ea07097fefed3127501305d65f1ec1e55bdaf365c3ba6c2d18d9900af14d19ea7187850af470a744a12facbdc0c3763a4478eaff5568cfc9c709dc045ce58654285004a005e511c5723230c494d5640545249555a56005f3f153b585b3347375264395e3d545239564162264600c0c0c0c0c04040c0404040c0c040c0c0c0c000002000d38045c3b35d9c88325bc861295440955001a54305940e15503a5440e95001a5430594a6024a80f2a88062402954401d50322aa004288f0a2806944205d40125a3024a80f2a880624029d4417540c9a880121f8005'),
	('\xdbeb45c6b0a4f6ffc7c550a5d73615ddc14114a61f90f0202d09f1d90601c279', '\x0128b52ffd2090810400445259540100000001000000b45aa3d21eb52c959e37c34098925047cd0833459d985a17217d33e8633eec2ea06ee0c5cb1950f743b7d1ea6a32f4c94eb3c7f1770dacce93a555ee6f1e3c5e020000002ebe7f4d45d02ec7bb76c00051461bfb55bd5680e2bfbb0cbd798aaa7bd2d84d4fe093dc6bb7770add59e0749ccaec9e9e39dffd4fca26ad7f4f2df332e61d1b'),
	('\xe093416389446f5c13a0639f6991867625512c5b0f1b2d3b94c4e8ddb5853f12', '\x0128b52ffd600014750c0044130c0c0b000300060075004c00b600ca006b00eb00180001e835c67fd7c572a03580457f7699af7c041eb38e68d3cc44cecc2e40f17bb01abab0e6dac21c00ac151178b0d72da14bf2f15286f589f2354d1f56372821460a42988c51e8d036cd49a92ef75d0013754ddf93c7ece668514a9a5401c12821700e3ea642c1aeeb6897d4154d5c38608028129eaf0036670d325ccdd3ba011d60a290456d90d3110433131e26a6618abf0182d116803007142ef27300981a4798004f86cae0ed4e7e203b16e4361f136f0109dcd72a09427115ee58dee69b48d7188500854aa2d1590e3a69bc55694a1bf1c73e8cb80e8f2d2bf19c7a1c5dbb79cce1882a93b399bfcd00406056464a4d423d064b5230484d0f3d5339ea3b60597067314535356a5b42695050496430250040c04040c040c0c0c03fc0402100d58045012400165586a19c0316bc1550e45640915b01456e0514b91550e45640115801a5ab8012a03c2aa018500a155007948c0a2801caa3028a01a550017540c9a88012a03c2aa018500a75501d50322aa084070c01'),
	('\x0169cf9dc50bb825fbafb523174c8772cb4dde82e276892b05cd853ab4d95874', '\x0128b52ffd6000144d0d0044150c0c0b000b0003030303030203030300030006000600750075004c004c00b600b600ca00ca006b006b00eb00eb001800180001e835c67fd7c572003580457f7699af7c041eb38e68d3cc44cecc2e40f17bb01abab0e6dac21c00ac151178b0d72d004bf2f15286f589f2354d1f56372821460a42988c51e8d036cd49a92ef75d0013754ddf93c7ec0068514a9a5401c12821700e3ea642c1aeeb6897d4154d5c38608028129eaf0036670d325ccdd300011d60a290456d90d3110433131e26a6618abf0182d116803007142ef27300981a4798004f8600e0ed4e7e203b16e4361f136f0109dcd72a09427115ee58dee69b48d7188500854aa2d1590e3a00bc55694a1bf1c73e8cb80e8f2d2bf19c7a1c5dbb79cce1882a93b399bfcd00406056464a4d4200064b5230484d0f3d5339ea3b60597067314535356a5b42695050496430250040c04040c04040004040c0c0c03fc0402920e0d59a01d5000a09c2a27658bcfeadd4bb957ab752ef56eadd4abd5ba9072b55aa2871f165544a5c7c1995122ebe8c4a898b2fa352e2e2cba82871f165544a5c7c1995122ebe8c7a256ea752ec366cba01'),
	('\x1cde714d74905f32a0c43f3f8e6060fca76f7634b433a779e62b6b0e7806ee6b', '\x0128b52ffd600008b5020054020606000600750075004c004c00b600b600ca00ca006b006b00eb00eb0018001800010001001b1000544a5c7c199512175f46a5c4c597512971f165544a5c7c199512175f46a5c4c597512971f165544a5cec6201'),
	('\x1de33e678bbdf1bfd637c4ba7966ac405843a8d494a1e73563e5f88fa620cab7', '\x0128b52ffd20908104004452595401000000010000003bec38c701911e4f16b0a249bb4792ae7f5f7ee3280e1ae326fab2adbc4ede87340edc9b51c6da3010501eb1b9c932760f5145caf38b98fb2f9591f8cd87bfb402000000e71f3e0f6769a0486563dda2e281323e15863f646a4593a95ed679a3ce051b4d4fe093dc6bb7770add59e0749ccaec9e9e39dffd4fca26ad7f4f2df332e61d1b'),
	('\x340edc9b51c6da3010501eb1b9c932760f5145caf38b98fb2f9591f8cd87bfb4', '\x0128b52ffd601551ed0600f661261ba027190e7355555f555567a6aa2fc8e30f799ecbf337faa31d92641e001a001a00dbb66ddbb66ddbb66ddbb66ddbb66ddbb66ddbb66ddbb6ad600881328380dbb66ddbb66ddbb66ddbb66ddbb66ddbb66ddbb66ddbb66ddb16dbb66ddbb66ddbb66ddbb66ddbb66ddbb66ddbb66ddbb66ddb163114178947c3019941449239189629b46ddbb66ddbb66ddbb66ddbb66ddbb66ddbb66ddb16810aa81120f0d201d1876c8c011270affcffff27690dfb51b4409f07aa7e2dffa076ffed6f3117540e8a1f8af6ff0dc200bf5f8d269546934aa3c937abf2c34815'),
	('\x3bec38c701911e4f16b0a249bb4792ae7f5f7ee3280e1ae326fab2adbc4ede87', '\x0128b52ffd6024224d0b00d2cf3232504d930ed0c8cc2c3133338dcccc4cec66a691a9f8ed3ff01e5bcbbf9999b5f403464639f889f8cc887f0c1c8c3f54c7b6146b5fb0cbaaa8e9651e6deda19479b4dbb66ddbb66ddbb66ddbb6ed6ddbb6edd86555d4f4509a2ed86555d4f4507a174c87e9301da6c374980ed3613a4c87e9b233cd06835d56454d0f13ca341b8c9450b6613e34212023242225d1f6fedf3c2c3b3bcf56b9638e37d638638c2d5f6c71c5144f2c71c495217ed8e186195e5861ca0947237cb0c105133cf06481ddd00103fcec441bc599048093a830a04e653970839428190e122811834b8c08e61fc9efc45a1ca9b4e2d98fa073f8aff7f5c86afc24d8088751d2054e528c271acd8910b9cd594d632657180e282547e2e17fe1d4409af9ec05d9ca6727c8463efb40b6f1d98a0ca29d45c1b45f1c999296d79a6eb72fbed6f0d5751197bddb7de9048ec0e780e4f23770a91c727431ecb94933fdeed3c1bfb776f0fdad6b00eddeda19a6ec'),
	('\xcc00e5d92adcfa21f5af38fbf602e7326d1e370272317fd01354a745f3b67462', '\x0128b52ffd600014c50d0024160b0b000b000300030006000600750075004c004c00b600b600ca00ca006b006b00eb00eb0018001800bbb7a856520dc42291009d14f2cf6fd34e6cac917658cbc4a3c74253f19de2907d0e00ec83a20660007891c639d9e0cfe1280085008d14f3d2919d90ed2456862890f694f4b06bc95321dbe9bdc8268ef7000d0a7c29643c90867f0072910c0bcaf9cb6e9258d1021e1fc803b81e4add7361f954afbab4a36018009b90d60f1f23b481ae00b9671aa7c18010d92e94c6520600312593c99cf597ed9c4916d2d68718b1000da645696cbb0f88f900dbac936ea07097fefed3127501305d65f1ec1e55bdaf365c3ba6c2d18d9900af14d19ea7187850af000a744a12facbdc0c3763a4478eaff5568cfc9c709dc045ce58654285004a005e511c5723230c494d0040545249555a56005f3f153b585b3347375264395e3d545239564162264600c0c0c0c0c04040c0400040c0c04040c0c0404040c0c0c0c000002920d043b11cd3802484d250b6080d2954aa844ae950291d6a4a874ae950291d2aa5a99478f165544a5c7c1915252ebe8c4a898b5e46a5c4c5975129e1e2cba894b8f8322a4a5c7c19f54a5cf4322a252e761b16'),
	('\xe71f3e0f6769a0486563dda2e281323e15863f646a4593a95ed679a3ce051b4d', '\x0128b52ffd602422ed0b00d650372a306f9b31c0405c0a829182828222fc66a683a32ceba5a525cb2f261eb0c0ce0d3683061966642adf3f052b002e002900175b5c31c5134b1c7165881f76b8618617569872c293113ed8e082091e58b2c0ece680015e47261465490247980c346584cf35dd26c26420679b88823e42aaaaaa2a9009d55e94c791238bb2bc5e54e58e39de58e38c31b61ccf35dd468a26c8d9467aca089f6beab867ca089f6beab44797e9325da6cb74992ed365ba4c97e9b2284f3f5346f85cbbace9a9a97359d35346f85c53c73d5346f85c53a73d5346f85c93a2495a8a2668ca0803808ea830de4e653980839428ad011288514389842218ff4c7e27d6e2a9b47e8f9a608fda470f47c26a413a813208e29c57a091fb87400cf80d7035726ce6a85c28bc5a904fa00c8238e71568e4c719969a4733dd5edead543a796fa4e8e3ab8da2152716df547bda8f8f4c49b86e2d7a799a6b0de65c97265cd3966e2712df46adcc074655c919ab61ef8b7382947873c698356488fcaf442bc3faec76'),
	('\x8536e8fcc29644eca77570830b28836d1c8aa0da751a8a08cb6cd3c9af3ab33a', '\x0128b52ffd600014ad0100b8000c000300060075004c00b600ca006b00eb00180001000b1000faff784fe13d85f714de53784fe13d85f714de53787f85f7d410'),
	('\xb8214f21d844c3c2dce2f4c2ed4c9052c44f50a0ff51b3cfee81a875809f9a14', '\x0128b52ffd6000149d02005402000b000300060075004c00b600ca006b00eb001800b70091000a009000a60014005100c0001210007a0aef29bca7f09ec27b0aef29bca7f09ec27b0aef29bca7f09ec27b0aef29bca7f09ec2fb2bbca786'),
	('\xfd48db520b879b621600699d17114d8ae7d58036c7acd15e045665b7551ce349', '\x0128b52ffd6000083501009800060075004c00b600ca006b00eb00180001000914002b7abcc77bbcc77bbcc77bbcc7fb21'),
	('\x38037c79f497a2e191de6f6935b67ffdc583f8b9eeaea773958e1cd4e03fc51e', '\x0128b52ffd600014a50200640200000b000300060075004c00b600ca006b00eb001800a800c6007c00d6004500d1001c00c000121000790aef29bca7f09ec27b0aef29bca7f09ec27b0aef29bca7f09ec27b0aef29bca7f09ec2fb2bbca788'),
	('\x5975843a99e1dacc79dc7177fd8f9799aab60d1403368a6fde6ab452ee8756d5', '\x0128b52ffd6000083d0100a00000060075004c00b600ca006b00eb00180001000914002b79bcc77bbcc77bbcc77bbcc77b22'),
	('\x8b47789d002d4f760b18778be3fffe4595eeb8a01db96ef7420e9497428c2245', '\x0128b52ffd600014a50200640200000b000300060075004c00b600ca006b00eb001800e800ac00130036009800850040004000121000790aef29bca7f09ec27b0aef29bca7f09ec27b0aef29bca7f09ec27b0aef29bca7f09ec2fb2bbca788');
INSERT INTO snapshot.snapshot OVERRIDING SYSTEM VALUE VALUES
	(1, '01a214ec-d414-7981-b398-8d48b616fc32', '01a214ec-d40c-7bc7-9406-ff5950ffcd81', 1795647394834681483, '\x16426e2b9982abb489c716e5662d212f4f21c4297fecf8296fdb16b5120f92af', '\xdbeb45c6b0a4f6ffc7c550a5d73615ddc14114a61f90f0202d09f1d90601c279', 2, 1, 'tester', 'operator', '', 40, '{"channels": 80, "in_alarm": 0, "connected": 80, "disconnected": 0, "never_connected": 0, "source_time_suspect": 0}', '{"p99_age_ns": 11377029, "median_age_ns": 11377029, "newest_source_time_ns": 1795647394823304454, "oldest_source_time_ns": 1795647394823304454}', '[{"epoch": 1, "shard": 0, "age_ns": 9468236, "sequence": 3}]', 8878563),
	(2, '01a214ec-d427-7f04-93ed-1d28f20c462a', '01a214ec-d426-7584-8d5c-2889ab3c3958', 1795647394854697326, '\xc8716939541179811b395205a0f8524311dd4389cd10cd8f5622638ce47b667b', '\xdbeb45c6b0a4f6ffc7c550a5d73615ddc14114a61f90f0202d09f1d90601c279', 2, 1, 'tester', 'operator', '', 40, '{"channels": 80, "in_alarm": 0, "connected": 80, "disconnected": 0, "never_connected": 0, "source_time_suspect": 0}', '{"p99_age_ns": 31392872, "median_age_ns": 31392872, "newest_source_time_ns": 1795647394823304454, "oldest_source_time_ns": 1795647394823304454}', '[{"epoch": 1, "shard": 0, "age_ns": 3015207, "sequence": 4}]', 1887240),
	(3, '01a214ec-d44c-7de7-affd-53a42520d5ab', '01a214ec-d449-7b17-a4b6-0a623d3562d1', 1795647394890949964, '\x8add7d6be70f2b12e4be59d967bd6a03ff5411641ee4ac0b5b7a5fa41d9d3193', '\x1de33e678bbdf1bfd637c4ba7966ac405843a8d494a1e73563e5f88fa620cab7', 3, 1, 'tester', 'operator', '', 39, '{"channels": 78, "in_alarm": 0, "connected": 77, "disconnected": 1, "never_connected": 0, "source_time_suspect": 0}', '{"p99_age_ns": 67645510, "median_age_ns": 67645510, "newest_source_time_ns": 1795647394823304454, "oldest_source_time_ns": 1795647394823304454}', '[{"epoch": 1, "shard": 0, "age_ns": 3119108, "sequence": 6}]', 3367478),
	(4, '01a214ec-d457-7dec-86bb-2747b1a90fd2', '01a214ec-d454-736f-83a0-91c82e1bfa2c', 1795647394902297110, '\xd884c9daceea6d2b3ae93c8e9593694bb87301899f924008ce9579952addf094', '\x1de33e678bbdf1bfd637c4ba7966ac405843a8d494a1e73563e5f88fa620cab7', 3, 1, 'tester', 'operator', '', 1, '{"channels": 2, "in_alarm": 0, "connected": 2, "disconnected": 0, "never_connected": 0, "source_time_suspect": 0}', '{"p99_age_ns": 78992656, "median_age_ns": 78992656, "newest_source_time_ns": 1795647394823304454, "oldest_source_time_ns": 1795647394823304454}', '[{"epoch": 1, "shard": 0, "age_ns": 5435848, "sequence": 6}]', 3883448),
	(5, '01a214ec-d46e-71b0-b5a2-60165b72ce46', '01a214ec-d46b-7ad3-9b0f-0cc36f351259', 1795647394924374716, '\x0a84d216ac8269c47de3cc56e578f0bf1846ec73e9c62f692797d620f7b9a353', '\x1de33e678bbdf1bfd637c4ba7966ac405843a8d494a1e73563e5f88fa620cab7', 3, 1, 'tester', 'operator', '', 1, '{"channels": 2, "in_alarm": 0, "connected": 2, "disconnected": 0, "never_connected": 0, "source_time_suspect": 0}', '{"p99_age_ns": 101070262, "median_age_ns": 101070262, "newest_source_time_ns": 1795647394823304454, "oldest_source_time_ns": 1795647394823304454}', '[{"epoch": 1, "shard": 0, "age_ns": 4050924, "sequence": 6}]', 3102190);
SELECT pg_catalog.setval('jobs.outbox_id_seq', 5, true);
SELECT pg_catalog.setval('snapshot.snapshot_no_seq', 5, true);
ALTER TABLE ONLY audit.entry
    ADD CONSTRAINT entry_pkey PRIMARY KEY (seq);
ALTER TABLE ONLY catalog.channel
    ADD CONSTRAINT channel_pkey PRIMARY KEY (number);
ALTER TABLE ONLY catalog.pv
    ADD CONSTRAINT pv_id_key UNIQUE (id);
ALTER TABLE ONLY catalog.pv
    ADD CONSTRAINT pv_pkey PRIMARY KEY (number);
ALTER TABLE ONLY catalog.tag_group
    ADD CONSTRAINT tag_group_folded_key UNIQUE (folded);
ALTER TABLE ONLY catalog.tag
    ADD CONSTRAINT tag_group_id_folded_key UNIQUE (group_id, folded);
ALTER TABLE ONLY catalog.tag_group
    ADD CONSTRAINT tag_group_pkey PRIMARY KEY (id);
ALTER TABLE ONLY catalog.tag
    ADD CONSTRAINT tag_id_key UNIQUE (id);
ALTER TABLE ONLY catalog.tag
    ADD CONSTRAINT tag_pkey PRIMARY KEY (number);
ALTER TABLE ONLY catalog.version
    ADD CONSTRAINT version_pkey PRIMARY KEY (one);
ALTER TABLE ONLY drey_meta.migration
    ADD CONSTRAINT migration_pkey PRIMARY KEY (package, version);
ALTER TABLE ONLY idem.request
    ADD CONSTRAINT request_pkey PRIMARY KEY (principal, method, request_id);
ALTER TABLE ONLY jobs.job
    ADD CONSTRAINT job_pkey PRIMARY KEY (id);
ALTER TABLE ONLY jobs.outbox
    ADD CONSTRAINT outbox_pkey PRIMARY KEY (id);
ALTER TABLE ONLY lease.epoch
    ADD CONSTRAINT epoch_pkey PRIMARY KEY (name);
ALTER TABLE ONLY snapshot.label
    ADD CONSTRAINT label_pkey PRIMARY KEY (snapshot_no);
ALTER TABLE ONLY snapshot.manifest
    ADD CONSTRAINT manifest_pkey PRIMARY KEY (page_no, snapshot_no);
ALTER TABLE ONLY snapshot.page
    ADD CONSTRAINT page_pkey PRIMARY KEY (hash);
ALTER TABLE ONLY snapshot.snapshot
    ADD CONSTRAINT snapshot_id_key UNIQUE (id);
ALTER TABLE ONLY snapshot.snapshot
    ADD CONSTRAINT snapshot_job_id_key UNIQUE (job_id);
ALTER TABLE ONLY snapshot.snapshot
    ADD CONSTRAINT snapshot_pkey PRIMARY KEY (no);
CREATE INDEX entry_by_actor ON audit.entry USING btree (actor, seq DESC);
CREATE INDEX entry_by_object ON audit.entry USING btree (object, seq DESC);
CREATE INDEX channel_by_pv ON catalog.channel USING btree (pv_number);
CREATE INDEX pv_by_version ON catalog.pv USING btree (version);
CREATE UNIQUE INDEX pv_living_name ON catalog.pv USING btree (name) WHERE (delete_time_ns = 0);
CREATE INDEX pv_tombstones ON catalog.pv USING btree (name, number) WHERE (delete_time_ns <> 0);
CREATE INDEX request_by_time ON idem.request USING btree (create_time_ns);
CREATE INDEX job_by_kind ON jobs.job USING btree (kind, id DESC);
CREATE INDEX job_open ON jobs.job USING btree (kind, id) WHERE (state = ANY (ARRAY['queued'::text, 'running'::text]));
CREATE INDEX label_by_labels ON snapshot.label USING gin (labels);
CREATE INDEX manifest_by_snapshot ON snapshot.manifest USING btree (snapshot_no, page_no);
CREATE INDEX snapshot_by_time ON snapshot.snapshot USING btree (time_ns DESC, no DESC);
CREATE TRIGGER append_only BEFORE DELETE OR UPDATE ON audit.entry FOR EACH ROW EXECUTE FUNCTION audit.refuse();
CREATE TRIGGER no_truncate BEFORE TRUNCATE ON audit.entry FOR EACH STATEMENT EXECUTE FUNCTION audit.refuse();
CREATE TRIGGER immutable BEFORE DELETE OR UPDATE ON snapshot.manifest FOR EACH ROW EXECUTE FUNCTION snapshot.refuse();
CREATE TRIGGER immutable BEFORE DELETE OR UPDATE ON snapshot.page FOR EACH ROW EXECUTE FUNCTION snapshot.refuse();
CREATE TRIGGER immutable BEFORE DELETE OR UPDATE ON snapshot.snapshot FOR EACH ROW EXECUTE FUNCTION snapshot.refuse();
CREATE TRIGGER no_truncate BEFORE TRUNCATE ON snapshot.label FOR EACH STATEMENT EXECUTE FUNCTION snapshot.refuse();
CREATE TRIGGER no_truncate BEFORE TRUNCATE ON snapshot.manifest FOR EACH STATEMENT EXECUTE FUNCTION snapshot.refuse();
CREATE TRIGGER no_truncate BEFORE TRUNCATE ON snapshot.page FOR EACH STATEMENT EXECUTE FUNCTION snapshot.refuse();
CREATE TRIGGER no_truncate BEFORE TRUNCATE ON snapshot.snapshot FOR EACH STATEMENT EXECUTE FUNCTION snapshot.refuse();
CREATE TRIGGER tombstones BEFORE DELETE ON snapshot.label FOR EACH ROW EXECUTE FUNCTION snapshot.refuse();
ALTER TABLE ONLY catalog.tag
    ADD CONSTRAINT tag_group_id_fkey FOREIGN KEY (group_id) REFERENCES catalog.tag_group(id) ON DELETE CASCADE;
ALTER TABLE ONLY snapshot.label
    ADD CONSTRAINT label_snapshot_no_fkey FOREIGN KEY (snapshot_no) REFERENCES snapshot.snapshot(no);
