import Foundation

/// A real broker in the role of the cloud: mosquitto, or RabbitMQ with its MQTT plugin.
///
/// It drops nothing by itself: no limit on queued messages, so that every command it acknowledged is owed.
package final class CloudBroker {
    package enum Make: String, Sendable, CaseIterable {
        case mosquitto
        /// Debian's 3.10 speaks MQTT up to 3.1.1, and QoS 1 at most.
        case rabbitMQ = "rabbitmq"

        /// Whether its program is there; the everyday tests do not install RabbitMQ.
        package var isInstalled: Bool { path != nil }

        fileprivate var path: String? {
            let paths =
                switch self {
                case .mosquitto: ["/usr/sbin/mosquitto", "/usr/bin/mosquitto", "/usr/local/sbin/mosquitto"]
                case .rabbitMQ: ["/usr/lib/rabbitmq/bin/rabbitmq-server"]
                }
            return paths.first { access($0, X_OK) == 0 }
        }
    }

    package struct Options: Sendable {
        package var make = Make.mosquitto
        /// Of mosquitto: whether sessions and queues outlive the process; saved every `autosaveSeconds` and at a
        /// graceful end. RabbitMQ always keeps what it acknowledged.
        package var persistence = false
        package var autosaveSeconds = 1
        package var inflightMessagesMax = 100
        /// Of mosquitto: further lines of its configuration.
        package var lines: [String] = []
        package init() {}
    }

    package let port: UInt16
    package let make: Make
    private let place: Workplace
    private let name: String
    private let arguments: [String]
    private let nodePorts: (epmd: UInt16, distribution: UInt16)
    private var process: ChildProcess?
    /// RabbitMQ's runtime looks up its nodes here; without one of ours it would start one that stays.
    private var portMapper: ChildProcess?

    package init(in place: Workplace, name: String = "cloud", options: Options = Options()) throws {
        port = FreePort.next()
        make = options.make
        self.place = place
        self.name = name
        switch options.make {
        case .mosquitto:
            nodePorts = (0, 0)
            let text = Self.mosquittoConfiguration(port, options, place, name)
            arguments = ["-c", try place.write(text, to: "\(name).conf")]
        case .rabbitMQ:
            nodePorts = (FreePort.next(), FreePort.next())
            _ = try place.write("[rabbitmq_mqtt].\n", to: "\(name).plugins")
            _ = try place.write(Self.rabbitMQConfiguration(port), to: "\(name).conf")
            arguments = []
        }
    }

    private static func mosquittoConfiguration(
        _ port: UInt16, _ options: Options, _ place: Workplace, _ name: String
    ) -> String {
        var text = """
            listener \(port) 127.0.0.1
            allow_anonymous true
            max_queued_messages 0
            max_queued_bytes 0
            max_inflight_messages \(options.inflightMessagesMax)
            log_dest stderr
            log_type error
            log_type warning
            log_type notice
            persistence \(options.persistence)

            """
        if options.persistence {
            text += "autosave_interval \(options.autosaveSeconds)\npersistence_location \(place.path)/\n"
            text += "persistence_file \(name).db\n"
        }
        text += options.lines.map { $0 + "\n" }.joined()
        // Started by root it would change to a user who may not write here.
        if geteuid() == 0 { text += "user root\n" }
        return text
    }

    private static func rabbitMQConfiguration(_ port: UInt16) -> String {
        """
        listeners.tcp = none
        mqtt.listeners.tcp.1 = 127.0.0.1:\(port)
        mqtt.allow_anonymous = true
        mqtt.prefetch = 100
        mqtt.subscription_ttl = 86400000
        log.console = true
        log.console.level = warning

        """
    }

    /// Starts it and returns once it accepts connections.
    package func start() throws {
        guard let path = make.path else { throw WorkbenchError("\(make.rawValue) is not installed") }
        let log = place.file("\(name).log")
        let child: ChildProcess
        switch make {
        case .mosquitto:
            child = try ChildProcess(path, arguments, log: log)
        case .rabbitMQ:
            if portMapper?.isRunning != true {
                portMapper = try ChildProcess(
                    "/usr/bin/epmd", ["-address", "127.0.0.1", "-port", "\(nodePorts.epmd)"], log: log)
            }
            child = try ChildProcess("/usr/bin/env", environment + [path], log: log)
        }
        process = child
        let port = self.port
        // RabbitMQ takes its time, and more of it where others want the processor too.
        guard waitUpTo(make == .mosquitto ? 10 : 90, until: { Loopback.accepts(port) || !child.isRunning }),
            child.isRunning
        else { throw WorkbenchError("\(make.rawValue) does not start: \(child.log.suffix(2000))") }
    }

    private var environment: [String] {
        [
            "HOME=\(place.path)", "RABBITMQ_NODENAME=\(name)-\(port)@localhost",
            "RABBITMQ_DIST_PORT=\(nodePorts.distribution)", "ERL_EPMD_PORT=\(nodePorts.epmd)",
            "ERL_EPMD_ADDRESS=127.0.0.1", "RABBITMQ_MNESIA_BASE=\(place.file("\(name).mnesia"))",
            "RABBITMQ_LOG_BASE=\(place.file("\(name).logs"))",
            "RABBITMQ_ENABLED_PLUGINS_FILE=\(place.file("\(name).plugins"))",
            "RABBITMQ_CONFIG_FILE=\(place.file("\(name).conf"))", "RABBITMQ_CONF_ENV_FILE=/dev/null",
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS=-kernel inet_dist_use_interface {127,0,0,1}",
            // Makes the script become the broker instead of its parent, so that a signal reaches it.
            "RUNNING_UNDER_SYSTEMD=1",
        ]
    }

    package var isRunning: Bool { process?.isRunning ?? false }
    /// Started, and not told to end since.
    package var isWanted: Bool { process != nil }
    package var pid: pid_t? { process?.pid }

    /// SIGHUP: read the configuration and the access rules again.
    package func hangUp() { process?.send(SIGHUP) }

    package func stop() {
        process?.send(SIGTERM)
        _ = process?.ended(within: 10)
        process = nil
        portMapper = nil
    }

    package func kill() {
        process?.kill()
        process = nil
    }

    /// Makes it begin anew at its next start, as after the loss of its disk.
    package func forget() {
        precondition(process == nil, "a broker that runs keeps its memory")
        for path in ["\(name).db", "\(name).mnesia"].map(place.file)
        where FileManager.default.fileExists(atPath: path) {
            do {
                try FileManager.default.removeItem(atPath: path)
            } catch {
                fatalError("cannot remove \(path): \(error)")
            }
        }
    }
}
