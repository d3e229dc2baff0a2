// Which screen for which address, and who may see it. Screens are loaded when they are opened.
import { Component, lazy, Suspense, useEffect, useState, type ReactNode } from "react";
import { Navigate, Route, Routes, useLocation } from "react-router";
import { queryClient } from "./api/queries";
import { begin, useSession } from "./api/session";
import { Frame } from "./frame/frame";
import { live } from "./live/hooks";
import { Failure, Lines } from "./parts/states";
import { Login } from "./screens/login";
import { Setup } from "./screens/setup";

const Overview = lazy(() => import("./screens/overview"));
const Devices = lazy(() => import("./screens/devices"));
const Device = lazy(() => import("./screens/device/device"));
const Firmware = lazy(() => import("./screens/firmware"));
const Campaigns = lazy(() => import("./screens/campaigns"));
const NewCampaign = lazy(() => import("./screens/new-campaign/new-campaign"));
const Campaign = lazy(() => import("./screens/campaign"));
const Profiles = lazy(() => import("./screens/profiles"));
const Profile = lazy(() => import("./screens/profile/profile"));
const NewProfile = lazy(() => import("./screens/profile/new-profile"));
const Broker = lazy(() => import("./screens/broker/broker"));
const Audit = lazy(() => import("./screens/audit"));
const DeadLetters = lazy(() => import("./screens/dead-letters"));
const Settings = lazy(() => import("./screens/settings"));
const Missing = lazy(() => import("./screens/missing"));

export function App() {
  const session = useSession();
  const { pathname } = useLocation();
  const [trouble, setTrouble] = useState<unknown>(null);
  const start = (): void => {
    setTrouble(null);
    begin().catch(setTrouble);
  };

  useEffect(start, []);
  useEffect(() => {
    if (session.phase === "in") live.start();
    else {
      live.stop();
      queryClient.clear();
    }
  }, [session.phase]);

  if (trouble !== null)
    return (
      <div className="centre">
        <Failure what="The console cannot reach its server" error={trouble} retry={start} />
      </div>
    );
  if (session.phase === "starting") return <div className="centre" aria-busy="true" />;
  if (pathname === "/setup" && session.phase === "out") return <Setup />;
  if (session.phase === "out") return <Login />;
  return (
    <Frame user={session.user}>
      <Guard key={pathname}>
        <Suspense fallback={<Lines rows={10} />}>
          <Routes>
            <Route path="/" element={<Overview />} />
            <Route path="/devices" element={<Devices />} />
            <Route path="/devices/:id" element={<Device />} />
            <Route path="/firmware" element={<Firmware />} />
            <Route path="/campaigns" element={<Campaigns />} />
            <Route path="/campaigns/new" element={<NewCampaign />} />
            <Route path="/campaigns/:id" element={<Campaign />} />
            <Route path="/profiles" element={<Profiles />} />
            <Route path="/new-profile" element={<NewProfile />} />
            <Route path="/profiles/:name" element={<Profile />} />
            <Route path="/broker" element={<Broker />} />
            <Route path="/audit" element={<Audit />} />
            <Route path="/dead-letters" element={<DeadLetters />} />
            <Route path="/settings" element={<Settings />} />
            <Route path="/login" element={<Navigate to="/" replace />} />
            <Route path="/setup" element={<Navigate to="/" replace />} />
            <Route path="*" element={<Missing />} />
          </Routes>
        </Suspense>
      </Guard>
    </Frame>
  );
}

/** A screen that breaks takes only itself down; a file that is gone after an update of the server asks for a reload. */
class Guard extends Component<{ children: ReactNode }, { error: unknown }> {
  override state = { error: null as unknown };
  static getDerivedStateFromError(error: unknown) {
    return { error };
  }
  override render() {
    if (this.state.error === null) return this.props.children;
    return <Failure what="This screen broke" error={this.state.error} retry={() => location.reload()} />;
  }
}
