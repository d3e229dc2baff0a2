// Accounts of people, and what this server is.
import { Button, Group, Menu, ActionIcon, Modal, PasswordInput, Select, Stack, TextInput } from "@mantine/core";
import { useQuery, useQueryClient } from "@tanstack/react-query";
import { useState } from "react";
import { createUser, deleteUser, getOverview, listUsers, updateUser } from "../api/calls";
import { asProblem, type Problem } from "../api/problem";
import { useMay, useSession } from "../api/session";
import type { Role, User } from "../api/shapes";
import { Ago } from "../parts/ago";
import { Confirm } from "../parts/confirm";
import { DataTable, type Column } from "../parts/data-table";
import { Icon } from "../parts/icons";
import { Failure, Lines } from "../parts/states";
import { Status } from "../parts/status";
import { failed, told } from "../parts/toast";
import { clip } from "../text/clip";
import { duration } from "../text/time";

const roles: { value: Role; label: string }[] = [
  { value: "viewer", label: "Viewer: looks" }, { value: "operator", label: "Operator: acts on devices" }, { value: "admin", label: "Administrator: everything" },
];

export default function Settings() {
  const mayAdmin = useMay("admin");
  return (
    <>
      <div className="head"><h1>Settings</h1></div>
      <div style={{ display: "grid", gap: 32, maxWidth: 980 }}>
        {mayAdmin && <Users />}
        <About />
      </div>
    </>
  );
}

function Users() {
  const queries = useQueryClient();
  const session = useSession();
  const me = session.phase === "in" ? session.user.id : "";
  const users = useQuery({ queryKey: ["users"], queryFn: listUsers });
  const [adding, setAdding] = useState(false);
  const [password, setPassword] = useState<User | null>(null);
  const [deleting, setDeleting] = useState<User | null>(null);
  const reload = () => queries.invalidateQueries({ queryKey: ["users"] });
  const change = (user: User, what: string, to: { role?: Role; disabled?: boolean }): void => {
    updateUser(user.id, to).then(() => { told(`${user.username}: ${what}`); void reload(); }).catch((error: unknown) => failed("Not changed", error));
  };
  const columns: Column<User>[] = [
    { id: "username", header: "User", value: (each) => each.username, cell: (each) => <>{clip(each.username, 64)}{each.id === me && <span className="dim"> you</span>}</> },
    { id: "role", header: "Role", width: 120, value: (each) => each.role, cell: (each) => each.role },
    { id: "state", header: "State", width: 110, value: (each) => each.disabled, cell: (each) => <Status state={each.disabled ? "disabled" : "active"} testid="user-status" /> },
    { id: "login", header: "Last login", width: 110, align: "right", hide: "sm", value: (each) => each.last_login_at, cell: (each) => <Ago at={each.last_login_at} /> },
    {
      id: "actions", header: "", free: true, width: 52, align: "right",
      cell: (each) => (
        <Menu position="bottom-end" width={190}>
          <Menu.Target><ActionIcon variant="subtle" color="gray" size="sm" aria-label={`Actions for ${clip(each.username, 40)}`} data-testid="user-actions"><Icon name="more" size={14} /></ActionIcon></Menu.Target>
          <Menu.Dropdown>
            <Menu.Item onClick={() => setPassword(each)}>Set a new password</Menu.Item>
            {roles.filter(({ value }) => value !== each.role && each.id !== me).map(({ value }) => <Menu.Item key={value} onClick={() => change(each, `is now ${value}`, { role: value })}>Make {value}</Menu.Item>)}
            {each.id !== me && <>
              <Menu.Divider />
              <Menu.Item onClick={() => change(each, each.disabled ? "enabled" : "disabled", { disabled: !each.disabled })} data-testid="user-disable">{each.disabled ? "Enable" : "Disable"}</Menu.Item>
              <Menu.Item c="var(--bad)" onClick={() => setDeleting(each)}>Delete</Menu.Item>
            </>}
          </Menu.Dropdown>
        </Menu>
      ),
    },
  ];
  return (
    <section>
      <div className="section" style={{ alignItems: "center" }}><h2>Users</h2><Button onClick={() => setAdding(true)} data-testid="user-add">Add a user</Button></div>
      {users.isError && !users.data ? <Failure what="The users could not be loaded" error={users.error} retry={() => void users.refetch()} />
        : users.isLoading ? <Lines rows={3} />
        : <DataTable label="Users" testid="user-table" columns={columns} rows={users.data!.items} rowId={({ id }) => id} rowData={({ username }) => ({ "data-testid": "user-row", "data-user": username })} />}
      {adding && <AddUser close={() => setAdding(false)} done={(name) => { setAdding(false); told(`${name} was added`); void reload(); }} />}
      {password && <NewPassword user={password} close={() => setPassword(null)} />}
      {deleting && (
        <Confirm title="Delete this user?" action="Delete user" type={deleting.username} close={() => setDeleting(null)} run={async () => { await deleteUser(deleting.id); told("The user was deleted"); await reload(); }}>
          {clip(deleting.username, 64)} will be logged out everywhere. What they did stays in the audit.
        </Confirm>
      )}
    </section>
  );
}

function AddUser({ close, done }: { close: () => void; done: (username: string) => void }) {
  const [username, setUsername] = useState("");
  const [password, setPassword] = useState("");
  const [role, setRole] = useState<Role>("operator");
  const [busy, setBusy] = useState(false);
  const [problem, setProblem] = useState<Problem | null>(null);
  const submit = async (): Promise<void> => {
    setBusy(true);
    try { await createUser({ username, password, role }); done(username); }
    catch (error) { setProblem(asProblem(error)); setBusy(false); }
  };
  return (
    <Modal opened onClose={close} title={<b>Add a user</b>}>
      <form onSubmit={(event) => { event.preventDefault(); void submit(); }} data-testid="user-form">
        <Stack gap="sm">
          {problem && problem.errors.length === 0 && <div className="notice" data-tone="bad" role="alert">{problem.status === 409 ? "There is a user of this name already." : problem.message}</div>}
          <TextInput label="User name" value={username} onChange={(event) => setUsername(event.currentTarget.value.trim())} required withAsterisk={false} maxLength={64} data-autofocus data-testid="user-name" error={problem?.of("username")} autoComplete="off" autoCapitalize="none" spellCheck={false} />
          <PasswordInput label="Password" description="At least 8 characters" value={password} onChange={(event) => setPassword(event.currentTarget.value)} required withAsterisk={false} minLength={8} data-testid="user-password" error={problem?.of("password")} autoComplete="new-password" />
          <Select label="Role" data={roles} value={role} onChange={(next) => setRole((next ?? "operator") as Role)} data-testid="user-role" />
          <Group justify="flex-end" gap="xs"><Button variant="default" onClick={close}>Cancel</Button><Button type="submit" loading={busy} data-testid="user-submit">Add user</Button></Group>
        </Stack>
      </form>
    </Modal>
  );
}

function NewPassword({ user, close }: { user: User; close: () => void }) {
  const [password, setPassword] = useState("");
  const [busy, setBusy] = useState(false);
  const submit = async (): Promise<void> => {
    setBusy(true);
    try { await updateUser(user.id, { password }); told(`${user.username} has a new password`); close(); }
    catch (error) { failed("Not changed", error); setBusy(false); }
  };
  return (
    <Modal opened onClose={close} title={<b>New password for {clip(user.username, 40)}</b>}>
      <form onSubmit={(event) => { event.preventDefault(); void submit(); }}>
        <Stack gap="sm">
          <PasswordInput label="Password" description="At least 8 characters" value={password} onChange={(event) => setPassword(event.currentTarget.value)} required withAsterisk={false} minLength={8} data-autofocus autoComplete="new-password" />
          <Group justify="flex-end" gap="xs"><Button variant="default" onClick={close}>Cancel</Button><Button type="submit" loading={busy}>Set password</Button></Group>
        </Stack>
      </form>
    </Modal>
  );
}

function About() {
  const overview = useQuery({ queryKey: ["overview"], queryFn: getOverview });
  return (
    <section>
      <div className="section"><h2>About this server</h2></div>
      {overview.isError && !overview.data ? <Failure what="The server's state could not be loaded" error={overview.error} retry={() => void overview.refetch()} />
        : !overview.data ? <Lines rows={4} />
        : (
          <dl className="facts">
            <dt>Version</dt><dd data-testid="about-version">{clip(overview.data.version, 40)}</dd>
            <dt>Running for</dt><dd>{duration(overview.data.uptime_s * 1000)}</dd>
            <dt>Store</dt><dd>{clip(overview.data.store.kind, 40)}</dd>
            {overview.data.parts.map(({ name, state, detail }) => [<dt key={`${name} t`}>{clip(name, 40)}</dt>, <dd key={`${name} d`}><Status state={state} /> <span className="dim">{clip(detail ?? "", 200)}</span></dd>])}
            <dt>API</dt><dd><a className="plain" style={{ textDecoration: "underline" }} href="/api/docs" target="_blank" rel="noreferrer">Reference</a>, <a className="plain" style={{ textDecoration: "underline" }} href="/api/openapi.json" target="_blank" rel="noreferrer">OpenAPI document</a></dd>
          </dl>
        )}
    </section>
  );
}
