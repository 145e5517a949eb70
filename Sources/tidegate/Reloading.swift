import NIOCore
import NIOPosix
import Operations
import Settings
import Uplink

/// Where a running gateway's settings come from, to read them again.
struct SettingsSource: Sendable {
    /// nil for the default file, if it is there.
    var file: String?
    /// What the command line says instead of the file.
    var listen: String?
    var state: String?

    /// The file's settings with what the command line says instead.
    func read() throws(SettingsErrors) -> Settings {
        var settings = try Settings.load(path: file)
        if let state { settings.state = state }
        if let listen {
            settings.replaceListeners(with: [try ListenerSettings(commandLine: listen, isAnonymous: true)])
        }
        return settings
    }
}

/// Settings that were read and checked, with all that is made of them before anything changes.
struct CheckedSettings: Sendable {
    let settings: Settings
    let uplinks: [UplinkPlan]
    /// Parts of the file that differ from what runs, and cannot change while it does.
    var waitForRestart: [String] = []

    /// - Throws: what is wrong with the settings, or with a file they name.
    init(_ settings: Settings) throws(SettingsErrors) {
        self.settings = settings
        let runtimeDirectory = ServiceNotifier.processEnvironment("RUNTIME_DIRECTORY") ?? "/tmp"
        var plans: [UplinkPlan] = []
        for uplink in settings.uplinks {
            plans.append(
                try UplinkPlan(
                    uplink, packetBytesMax: UInt32(clamping: settings.limits.packetBytes),
                    runtimeDirectory: runtimeDirectory))
        }
        uplinks = plans
    }

    /// The new settings as far as they can replace `running` without a restart.
    init(_ new: Settings, replacing running: Settings) throws(SettingsErrors) {
        var settings = new
        let kept = settings.keepWhatCannotChange(of: running)
        try self.init(settings)
        waitForRestart = kept
    }
}

/// Reads settings again, one after the other, on a thread of its own: the disk may take its time.
struct SettingsReader {
    private let source: SettingsSource
    private let thread = NIOThreadPool(numberOfThreads: 1)

    init(_ source: SettingsSource) {
        self.source = source
        thread.start()
    }

    /// - Parameter done: called on the loop.
    func read(
        replacing running: Settings, on loop: any EventLoop,
        done: @escaping (Result<CheckedSettings, SettingsErrors>) -> Void
    ) {
        let source = self.source
        thread.runIfActive(eventLoop: loop) {
            do throws(SettingsErrors) {
                return Result<CheckedSettings, SettingsErrors>.success(
                    try CheckedSettings(source.read(), replacing: running))
            } catch {
                return .failure(error)
            }
        }.assumeIsolated().whenSuccess(done)
    }
}

// Changing what can change while the gateway runs.
extension Host {
    /// Reads the configuration again and applies it. A broken one changes nothing; what is wrong is said in the log and
    /// to whoever asked.
    func reload(_ reply: @escaping (AdminAnswer) -> Void = { _ in }) {
        guard isServing else { return reply(.failed("the gateway is starting or stopping")) }
        settingsReader.read(replacing: settings, on: loop) { result in
            let answer: AdminAnswer
            switch result {
            case .success(let checked):
                guard self.isServing else { return reply(.failed("the gateway is stopping")) }
                answer = AdminAnswer(isGood: true, lines: self.apply(checked))
                for line in answer.lines { self.note(line) }
            case .failure(let errors):
                answer = AdminAnswer(
                    isGood: false,
                    lines: errors.errors.map(\.description) + ["nothing was changed"])
                self.complain(
                    "the configuration was not reloaded, and nothing was changed: \(errors.oneLine)")
            }
            reply(answer)
        }
    }

    /// - Returns: what was done, for people.
    private func apply(_ checked: CheckedSettings) -> [String] {
        // Certificates are renewed under the same names: for that alone people reload, too.
        let restart =
            checked.waitForRestart.map { "\($0): changed in the file; that needs a restart" }
            + readListenerSecurity().map { "\($0); what was read before stays in use" }
        guard checked.settings != settings || checked.uplinks != uplinkPlans else {
            return ["reloaded: nothing that can change while the gateway runs has changed"] + restart
        }
        let before = settings
        settings = checked.settings
        return ["reloaded"] + settings.profileChanges(since: before)
            + reconfigure(checked.uplinks, before: before) + restart
    }
}

extension Settings {
    /// Takes back what a running gateway cannot change, and says what of it differed.
    fileprivate mutating func keepWhatCannotChange(of running: Settings) -> [String] {
        var kept: [String] = []
        if state != running.state { kept.append("state") }
        if listeners != running.listeners { kept.append("listeners") }
        if journal != running.journal { kept.append("journal") }
        if limits.connections != running.limits.connections { kept.append("limits: connections") }
        if limits.packetBytes != running.limits.packetBytes { kept.append("limits: packet-size") }
        if limits.inflight != running.limits.inflight { kept.append("limits: inflight") }
        replaceListeners(with: running.listeners)
        (state, journal) = (running.state, running.journal)
        (limits.connections, limits.packetBytes) = (running.limits.connections, running.limits.packetBytes)
        limits.inflight = running.limits.inflight
        return kept
    }
}

extension Settings {
    /// What became of each device profile, for people.
    fileprivate func profileChanges(since before: Settings) -> [String] {
        func find(_ name: String, _ all: [ProfileSettings]) -> ProfileSettings? {
            all.first { $0.profile.name == name }
        }
        let now = deviceProfiles.compactMap { each -> String? in
            let earlier = find(each.profile.name, before.deviceProfiles)
            guard earlier != each else { return nil }
            return "profile \"\(each.profile.name)\": \(earlier == nil ? "new" : "changed")"
        }
        let gone = before.deviceProfiles.filter { find($0.profile.name, deviceProfiles) == nil }
        return now + gone.map { "profile \"\($0.profile.name)\": gone; its clients get what fits now" }
    }
}

extension SettingsErrors {
    fileprivate var oneLine: String { errors.map(\.description).joined(separator: " | ") }
}
