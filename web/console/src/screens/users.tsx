// Accounts of people: who they are, what they may, and whether they may at all.
import { ActionIcon, Button, Menu } from "@mantine/core";
import { useQuery, useQueryClient } from "@tanstack/react-query";
import { useState } from "react";
import { deleteUser, listUsers, resetSecondFactor, updateUser } from "../api/calls";
import { useSession } from "../api/session";
import type { Role, User } from "../api/shapes";
import { Ago } from "../parts/ago";
import { Confirm } from "../parts/confirm";
import { DataTable, type Column } from "../parts/data-table";
import { Icon } from "../parts/icons";
import { Failure, Lines } from "../parts/states";
import { Status } from "../parts/status";
import { failed, told } from "../parts/toast";
import { clip } from "../text/clip";
import { AddUser, NewPassword, roles } from "./user-forms";

export function Users() {
  const queries = useQueryClient();
  const session = useSession();
  const me = session.phase === "in" ? session.user.id : "";
  const users = useQuery({ queryKey: ["users"], queryFn: listUsers });
  const [adding, setAdding] = useState(false);
  const [password, setPassword] = useState<User | null>(null);
  const [deleting, setDeleting] = useState<User | null>(null);
  const [resetting, setResetting] = useState<User | null>(null);
  const reload = () => queries.invalidateQueries({ queryKey: ["users"] });
  const change = (user: User, what: string, to: { role?: Role; disabled?: boolean }): void => {
    updateUser(user.id, to)
      .then(() => {
        told(`${user.username}: ${what}`);
        void reload();
      })
      .catch((error: unknown) => failed("Not changed", error));
  };
  const columns: Column<User>[] = [
    {
      id: "username",
      header: "User",
      value: (each) => each.username,
      cell: (each) => (
        <>
          {clip(each.username, 64)}
          {each.id === me && <span className="dim"> you</span>}
        </>
      ),
    },
    { id: "role", header: "Role", width: 120, value: (each) => each.role, cell: (each) => each.role },
    {
      id: "state",
      header: "State",
      width: 110,
      value: (each) => each.disabled,
      cell: (each) => <Status state={each.disabled ? "disabled" : "active"} testid="user-status" />,
    },
    {
      id: "factor",
      header: "Second factor",
      width: 120,
      hide: "md",
      value: (each) => each.second_factor,
      cell: (each) => (each.second_factor ? "on" : <span className="dim">off</span>),
    },
    {
      id: "login",
      header: "Last login",
      width: 110,
      align: "right",
      hide: "sm",
      value: (each) => each.last_login_at,
      cell: (each) => <Ago at={each.last_login_at} />,
    },
    {
      id: "actions",
      header: "",
      free: true,
      width: 52,
      align: "right",
      cell: (each) => (
        <Menu position="bottom-end" width={190}>
          <Menu.Target>
            <ActionIcon
              variant="subtle"
              color="gray"
              size="sm"
              aria-label={`Actions for ${clip(each.username, 40)}`}
              data-testid="user-actions"
            >
              <Icon name="more" size={14} />
            </ActionIcon>
          </Menu.Target>
          <Menu.Dropdown>
            <Menu.Item onClick={() => setPassword(each)}>Set a new password</Menu.Item>
            {roles
              .filter(({ value }) => value !== each.role && each.id !== me)
              .map(({ value }) => (
                <Menu.Item key={value} onClick={() => change(each, `is now ${value}`, { role: value })}>
                  Make {value}
                </Menu.Item>
              ))}
            {each.id !== me && (
              <>
                <Menu.Divider />
                {each.second_factor && (
                  <Menu.Item onClick={() => setResetting(each)} data-testid="user-reset-factor">
                    Take away second factor
                  </Menu.Item>
                )}
                <Menu.Item
                  onClick={() => change(each, each.disabled ? "enabled" : "disabled", { disabled: !each.disabled })}
                  data-testid="user-disable"
                >
                  {each.disabled ? "Enable" : "Disable"}
                </Menu.Item>
                <Menu.Item c="var(--bad)" onClick={() => setDeleting(each)}>
                  Delete
                </Menu.Item>
              </>
            )}
          </Menu.Dropdown>
        </Menu>
      ),
    },
  ];
  return (
    <section>
      <div className="section" style={{ alignItems: "center" }}>
        <h2>Users</h2>
        <Button onClick={() => setAdding(true)} data-testid="user-add">
          Add a user
        </Button>
      </div>
      {users.isError && !users.data ? (
        <Failure what="The users could not be loaded" error={users.error} retry={() => void users.refetch()} />
      ) : users.isLoading ? (
        <Lines rows={3} />
      ) : (
        <DataTable
          label="Users"
          testid="user-table"
          columns={columns}
          rows={users.data!.items}
          rowId={({ id }) => id}
          rowData={({ username }) => ({ "data-testid": "user-row", "data-user": username })}
        />
      )}
      {adding && (
        <AddUser
          close={() => setAdding(false)}
          done={(name) => {
            setAdding(false);
            told(`${name} was added`);
            void reload();
          }}
        />
      )}
      {password && <NewPassword user={password} close={() => setPassword(null)} />}
      {resetting && (
        <Confirm
          title="Take away the second factor?"
          action="Take away"
          close={() => setResetting(null)}
          run={async () => {
            await resetSecondFactor(resetting.id);
            told(`${resetting.username} logs in with the password alone`);
            await reload();
          }}
        >
          {clip(resetting.username, 64)} will be logged out everywhere, and logs in with the password alone until they
          set up another.
        </Confirm>
      )}
      {deleting && (
        <Confirm
          title="Delete this user?"
          action="Delete user"
          type={deleting.username}
          close={() => setDeleting(null)}
          run={async () => {
            await deleteUser(deleting.id);
            told("The user was deleted");
            await reload();
          }}
        >
          {clip(deleting.username, 64)} will be logged out everywhere. What they did stays in the audit.
        </Confirm>
      )}
    </section>
  );
}
