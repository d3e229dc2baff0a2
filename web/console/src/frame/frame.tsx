// What is around every screen: navigation, search, the live connection, the theme, the user.
import {
  ActionIcon,
  AppShell,
  Burger,
  Button,
  Group,
  Kbd,
  Menu,
  Modal,
  Stack,
  Table,
  Tooltip,
  useMantineColorScheme,
} from "@mantine/core";
import { useDisclosure, useMediaQuery } from "@mantine/hooks";
import { useEffect, useState, type ReactNode } from "react";
import { NavLink, useLocation, useNavigate } from "react-router";
import { logout } from "../api/session";
import type { Me } from "../api/shapes";
import { Icon } from "../parts/icons";
import { LiveDot } from "./live-dot";
import { openSearch, Search } from "./search";

const places = [
  ["/", "Overview", "overview"],
  ["/devices", "Devices", "devices"],
  ["/profiles", "Profiles", "profiles"],
  ["/firmware", "Firmware", "firmware"],
  ["/campaigns", "Updates", "campaigns"],
  ["/broker", "Broker", "broker"],
  ["/dead-letters", "Dead letters", "letters"],
  ["/audit", "Audit", "audit"],
  ["/settings", "Settings", "settings"],
] as const;

const keys: [string, string][] = [
  ["/", "Search this page's list, or everything"],
  ["Ctrl K", "Search everything and go anywhere"],
  ["j  k", "Next and previous row"],
  ["Enter", "Open the row"],
  ["Esc", "Close a dialog, leave a field"],
  ["g then o d p f u", "Go to Overview, Devices, Profiles, Firmware, Updates"],
  ["?", "This list"],
];

export function Frame({ user, children }: { user: Me; children: ReactNode }) {
  const [menuOpen, menu] = useDisclosure(false);
  const [keysOpen, help] = useDisclosure(false);
  const { pathname } = useLocation();
  // Once there is room for the navigation it is always shown: on the next narrow screen it begins closed again.
  const isWide = useMediaQuery("(min-width: 48em)");
  useEffect(menu.close, [pathname, isWide]);
  useKeys(help.open);
  return (
    <AppShell
      header={{ height: 48 }}
      navbar={{ width: 184, breakpoint: "sm", collapsed: { mobile: !menuOpen } }}
      padding={{ base: "sm", sm: "lg" }}
      // Without this the navigation slides out over the page whenever a window gets narrow.
      transitionDuration={0}
    >
      <a className="skip" href="#main">
        Skip to content
      </a>
      <AppShell.Header>
        <Group h="100%" px={{ base: "sm", sm: "md" }} gap="sm" wrap="nowrap">
          <Burger opened={menuOpen} onClick={menu.toggle} hiddenFrom="sm" size="sm" aria-label="Navigation" />
          <NavLink to="/" className="plain brand" aria-label="Mooring, overview">
            <Icon name="anchor" size={20} />
            Mooring
          </NavLink>
          <Button
            variant="default"
            onClick={openSearch}
            leftSection={<Icon name="search" size={14} />}
            rightSection={<Kbd size="xs">/</Kbd>}
            visibleFrom="sm"
            ml="auto"
            fw={400}
            c="dimmed"
            w={240}
            justify="space-between"
            data-testid="search-open"
          >
            Search
          </Button>
          <ActionIcon variant="subtle" color="gray" hiddenFrom="sm" ml="auto" onClick={openSearch} aria-label="Search">
            <Icon name="search" />
          </ActionIcon>
          <LiveDot />
          <Theme />
          <Menu position="bottom-end" width={180}>
            <Menu.Target>
              <ActionIcon
                variant="subtle"
                color="gray"
                aria-label={`Signed in as ${user.username}`}
                data-testid="user-menu"
              >
                <Icon name="user" />
              </ActionIcon>
            </Menu.Target>
            <Menu.Dropdown>
              <Menu.Label>
                {user.username} · {user.role}
              </Menu.Label>
              <Menu.Item component={NavLink} to="/settings">
                Settings
              </Menu.Item>
              <Menu.Item onClick={help.open}>Keys</Menu.Item>
              <Menu.Item component="a" href="/api/docs" target="_blank" rel="noreferrer">
                API reference
              </Menu.Item>
              <Menu.Divider />
              <Menu.Item onClick={() => void logout()} data-testid="logout">
                Log out
              </Menu.Item>
            </Menu.Dropdown>
          </Menu>
        </Group>
      </AppShell.Header>
      <AppShell.Navbar p="sm" className="nav" component="nav" aria-label="Main" mod={{ closed: !menuOpen }}>
        <Stack gap={2}>
          {places.map(([to, name, icon]) => (
            <NavLink key={to} to={to} end={to === "/"}>
              <Icon name={icon} />
              {name}
            </NavLink>
          ))}
        </Stack>
      </AppShell.Navbar>
      <AppShell.Main id="main">
        <div className="page">{children}</div>
      </AppShell.Main>
      <Search />
      <Modal opened={keysOpen} onClose={help.close} title={<b>Keys</b>}>
        <Table withRowBorders={false}>
          <Table.Tbody>
            {keys.map(([key, what]) => (
              <Table.Tr key={key}>
                <Table.Td w={150}>
                  <Kbd>{key}</Kbd>
                </Table.Td>
                <Table.Td>{what}</Table.Td>
              </Table.Tr>
            ))}
          </Table.Tbody>
        </Table>
      </Modal>
    </AppShell>
  );
}

function Theme() {
  const { colorScheme, setColorScheme } = useMantineColorScheme();
  const next = colorScheme === "auto" ? "light" : colorScheme === "light" ? "dark" : "auto";
  const icon = colorScheme === "auto" ? "auto" : colorScheme === "light" ? "sun" : "moon";
  return (
    <Tooltip label={`Theme: ${colorScheme}`}>
      <ActionIcon
        variant="subtle"
        color="gray"
        onClick={() => setColorScheme(next)}
        aria-label={`Theme is ${colorScheme}; switch to ${next}`}
        data-testid="theme"
      >
        <Icon name={icon} />
      </ActionIcon>
    </Tooltip>
  );
}

const goes: Record<string, string> = {
  o: "/",
  d: "/devices",
  p: "/profiles",
  f: "/firmware",
  u: "/campaigns",
  b: "/broker",
  a: "/audit",
  s: "/settings",
};

function useKeys(help: () => void): void {
  const navigate = useNavigate();
  const [pending] = useState({ until: 0 });
  useEffect(() => {
    const press = (event: KeyboardEvent): void => {
      const at = event.target as HTMLElement;
      const typing = at.closest("input, textarea, select, [contenteditable]") !== null;
      if (event.key === "Escape" && typing && !document.querySelector("[role=dialog]")) at.blur();
      if (typing || event.ctrlKey || event.metaKey || event.altKey || document.querySelector("[role=dialog]")) return;
      const goal = pending.until > event.timeStamp ? goes[event.key] : undefined;
      pending.until = event.key === "g" ? event.timeStamp + 1000 : 0;
      if (goal) void navigate(goal);
      else if (event.key === "?") help();
      else if (event.key === "/") {
        event.preventDefault();
        const field = document.querySelector<HTMLInputElement>("input[data-page-search]");
        if (field) {
          field.focus();
          field.select();
        } else openSearch();
      }
    };
    document.addEventListener("keydown", press);
    return () => document.removeEventListener("keydown", press);
  }, [navigate, help, pending]);
}
