/* One step of a session, told by Eclipse Paho's C library: session_story PORT 3.1.1|5 STEP ID
 *
 * Exit status 0 when the step went as a user of MQTT expects; otherwise the last line says what did not.
 */
#include <MQTTClient.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

enum { patience = 10000, quiet = 300 }; /* milliseconds */

static const char *program, *port, *version, *step, *name;

static int is5(void) { return strcmp(version, "5") == 0; }

static void expect(int holds, const char *format, ...)
{
    if (holds)
        return;
    va_list arguments;
    va_start(arguments, format);
    printf("%s, MQTT %s: ", step, version);
    vprintf(format, arguments);
    printf("\n");
    va_end(arguments);
    fflush(stdout);
    _exit(1);
}

/* `name/suffix`; each call has room of its own, and nothing is ever given back. */
static char *topic(const char *suffix)
{
    size_t size = strlen(name) + strlen(suffix) + 2;
    char *text = malloc(size);
    expect(text != NULL, "no memory");
    snprintf(text, size, "%s/%s", name, suffix);
    return text;
}

/* Connects; `present` is what Session Present must say. The library tells it of 3.1.1 alone: of a session of MQTT 5
 * the messages must tell. */
static MQTTClient connected(const char *id, int clean, int expiry, int present, const char *will_topic)
{
    MQTTClient client;
    char uri[64];
    snprintf(uri, sizeof uri, "tcp://127.0.0.1:%s", port);
    MQTTClient_createOptions creation = MQTTClient_createOptions_initializer;
    creation.MQTTVersion = is5() ? MQTTVERSION_5 : MQTTVERSION_3_1_1;
    int code = MQTTClient_createWithOptions(&client, uri, id, MQTTCLIENT_PERSISTENCE_NONE, NULL, &creation);
    expect(code == MQTTCLIENT_SUCCESS, "no client: %d", code);

    MQTTClient_willOptions will = MQTTClient_willOptions_initializer;
    will.topicName = will_topic;
    will.message = "gone";
    will.qos = 2;
    if (is5()) {
        MQTTClient_connectOptions options = MQTTClient_connectOptions_initializer5;
        options.cleanstart = clean;
        options.will = will_topic ? &will : NULL;
        MQTTProperties properties = MQTTProperties_initializer;
        MQTTProperty property;
        property.identifier = MQTTPROPERTY_CODE_SESSION_EXPIRY_INTERVAL;
        property.value.integer4 = (unsigned)expiry;
        MQTTProperties_add(&properties, &property);
        MQTTProperties of_will = MQTTProperties_initializer;
        property.identifier = MQTTPROPERTY_CODE_CONTENT_TYPE;
        property.value.data.data = "text/plain";
        property.value.data.len = (int)strlen("text/plain");
        MQTTProperties_add(&of_will, &property);
        MQTTResponse response =
            MQTTClient_connect5(client, &options, &properties, will_topic ? &of_will : NULL);
        expect(response.reasonCode == MQTTREASONCODE_SUCCESS, "CONNACK %d", response.reasonCode);
        MQTTResponse_free(response);
    } else {
        MQTTClient_connectOptions options = MQTTClient_connectOptions_initializer;
        options.MQTTVersion = MQTTVERSION_3_1_1;
        options.cleansession = clean;
        options.will = will_topic ? &will : NULL;
        code = MQTTClient_connect(client, &options);
        expect(code == MQTTCLIENT_SUCCESS, "CONNACK %d", code);
        expect(options.returned.sessionPresent == present, "Session Present is not %d", present);
    }
    return client;
}

static void leave(MQTTClient client)
{
    int code = is5() ? MQTTClient_disconnect5(client, patience, MQTTREASONCODE_SUCCESS, NULL)
                     : MQTTClient_disconnect(client, patience);
    expect(code == MQTTCLIENT_SUCCESS, "cannot disconnect: %d", code);
    MQTTClient_destroy(&client);
}

static void subscribe(MQTTClient client, const char *filter, int qos)
{
    if (is5()) {
        MQTTResponse response = MQTTClient_subscribe5(client, filter, qos, NULL, NULL);
        expect((int)response.reasonCode == qos, "SUBACK %d", response.reasonCode);
        MQTTResponse_free(response);
    } else {
        int code = MQTTClient_subscribe(client, filter, qos);
        expect(code == MQTTCLIENT_SUCCESS, "SUBACK %d", code);
    }
}

static void publish_message(MQTTClient client, const char *to, MQTTClient_message *message)
{
    MQTTClient_deliveryToken token = 0;
    if (is5()) {
        MQTTResponse response = MQTTClient_publishMessage5(client, to, message, &token);
        /* Without subscribers the answer is 0x10, which is no error. */
        expect((int)response.reasonCode >= 0 && response.reasonCode < 0x80, "not published: %d", response.reasonCode);
        MQTTResponse_free(response);
    } else {
        int code = MQTTClient_publishMessage(client, to, message, &token);
        expect(code == MQTTCLIENT_SUCCESS, "not published: %d", code);
    }
    int code = MQTTClient_waitForCompletion(client, token, patience);
    expect(code == MQTTCLIENT_SUCCESS, "not acknowledged: %d", code);
}

static void publish(MQTTClient client, const char *to, const char *text, int qos, int retained)
{
    MQTTClient_message message = MQTTClient_message_initializer;
    message.payload = (void *)text;
    message.payloadlen = (int)strlen(text);
    message.qos = qos;
    message.retained = retained;
    publish_message(client, to, &message);
}

/* The next message, which must be this one. */
static MQTTClient_message *receive(MQTTClient client, const char *from, const char *text, int qos, int retained)
{
    char *got = NULL;
    int length = 0;
    MQTTClient_message *message = NULL;
    int code = MQTTClient_receive(client, &got, &length, &message, patience);
    expect(code == MQTTCLIENT_SUCCESS || code == MQTTCLIENT_TOPICNAME_TRUNCATED, "receive: %d", code);
    expect(message != NULL, "\"%s\" does not come", text);
    expect(strcmp(got, from) == 0, "from %s, not %s", got, from);
    expect(message->payloadlen == (int)strlen(text) && memcmp(message->payload, text, strlen(text)) == 0,
           "\"%.*s\" instead of \"%s\"", message->payloadlen, (char *)message->payload, text);
    expect(message->qos == qos, "\"%s\" at QoS %d, not %d", text, message->qos, qos);
    expect(message->retained == retained, "\"%s\" with RETAIN %d", text, message->retained);
    MQTTClient_free(got);
    return message;
}

static void take(MQTTClient client, const char *from, const char *text, int qos, int retained)
{
    MQTTClient_message *message = receive(client, from, text, qos, retained);
    MQTTClient_freeMessage(&message);
}

static void nothing_more(MQTTClient client)
{
    char *got = NULL;
    int length = 0;
    MQTTClient_message *message = NULL;
    MQTTClient_receive(client, &got, &length, &message, quiet);
    expect(message == NULL, "one message too many");
}

/* Each QoS, to the gateway and back, and at a lower one than it was published. */
static void step_exchange(void)
{
    static const char *texts[] = {"at most once", "at least once", "exactly once"};
    MQTTClient screen = connected(topic("screen"), 1, 0, 0, NULL);
    MQTTClient press = connected(topic("press"), 1, 0, 0, NULL);
    for (int granted = 2; granted >= 0; granted--) {
        subscribe(screen, topic("+"), granted);
        for (int qos = 0; qos <= 2; qos++) {
            publish(press, topic("t"), texts[qos], qos, 0);
            take(screen, topic("t"), texts[qos], qos < granted ? qos : granted, 0);
        }
    }
    int code = MQTTClient_unsubscribe(screen, topic("+"));
    expect(code == MQTTCLIENT_SUCCESS, "UNSUBACK %d", code);
    publish(press, topic("t"), "not for you", 1, 0);
    nothing_more(screen);
    leave(screen);
    leave(press);
}

/* What is retained comes with a new subscription, and is removed by an empty message. */
static void step_retained(void)
{
    MQTTClient press = connected(topic("press"), 1, 0, 0, NULL);
    publish(press, topic("t"), "first", 1, 1);
    publish(press, topic("t"), "last", 2, 1);
    MQTTClient screen = connected(topic("screen"), 1, 0, 0, NULL);
    subscribe(screen, topic("t"), 2);
    take(screen, topic("t"), "last", 2, 1);
    publish(press, topic("t"), "", 1, 1);
    take(screen, topic("t"), "", 1, 0);
    subscribe(screen, topic("t"), 2);
    nothing_more(screen);
    leave(screen);
    leave(press);
}

/* A process that dies leaves a Will behind. */
static void step_will(void)
{
    MQTTClient screen = connected(topic("screen"), 1, 0, 0, NULL);
    subscribe(screen, topic("will"), 2);
    pid_t child = fork();
    expect(child >= 0, "cannot fork");
    if (child == 0) {
        execl(program, program, port, version, "die", name, (char *)NULL);
        _exit(127);
    }
    int status = 0;
    waitpid(child, &status, 0);
    expect(WIFEXITED(status) && WEXITSTATUS(status) == 0, "the dying client did not even connect");
    MQTTClient_message *will = receive(screen, topic("will"), "gone", 2, 0);
    if (is5()) {
        MQTTProperty *type = MQTTProperties_getProperty(&will->properties, MQTTPROPERTY_CODE_CONTENT_TYPE);
        expect(type && type->value.data.len == 10 && memcmp(type->value.data.data, "text/plain", 10) == 0,
               "the Will has lost its Content Type");
    }
    MQTTClient_freeMessage(&will);
    nothing_more(screen);
    leave(screen);
}

static void step_die(void)
{
    connected(topic("mortal"), 1, 0, 0, topic("will"));
    _exit(0); /* without DISCONNECT */
}

/* Subscribes, with a session that stays, and disconnects; another then publishes. */
static void step_leave(void)
{
    MQTTClient screen = connected(topic("screen"), 0, 300, 0, NULL);
    subscribe(screen, topic("t"), 2);
    leave(screen);
    MQTTClient press = connected(topic("press"), 1, 0, 0, NULL);
    publish(press, topic("t"), "one", 1, 0);
    publish(press, topic("t"), "two", 1, 0);
    publish(press, topic("t"), "three", 1, 0);
    leave(press);
}

/* Returns to the session: it is present, the messages arrive, and live ones behind them; once. */
static void step_resume(void)
{
    MQTTClient screen = connected(topic("screen"), 0, 300, 1, NULL);
    take(screen, topic("t"), "one", 1, 0);
    take(screen, topic("t"), "two", 1, 0);
    take(screen, topic("t"), "three", 1, 0);
    MQTTClient press = connected(topic("press"), 1, 0, 0, NULL);
    publish(press, topic("t"), "live", 2, 0);
    leave(press);
    take(screen, topic("t"), "live", 2, 0);
    leave(screen);
    screen = connected(topic("screen"), 0, 300, 1, NULL);
    nothing_more(screen);
    leave(screen);
}

static void add_text(MQTTProperties *properties, enum MQTTPropertyCodes code, const char *text)
{
    MQTTProperty property;
    property.identifier = code;
    property.value.data.data = (char *)text;
    property.value.data.len = (int)strlen(text);
    MQTTProperties_add(properties, &property);
}

static void add_pair(MQTTProperties *properties, const char *key, const char *value)
{
    MQTTProperty property;
    property.identifier = MQTTPROPERTY_CODE_USER_PROPERTY;
    property.value.data.data = (char *)key;
    property.value.data.len = (int)strlen(key);
    property.value.value.data = (char *)value;
    property.value.value.len = (int)strlen(value);
    MQTTProperties_add(properties, &property);
}

static void expect_text(MQTTProperties *properties, enum MQTTPropertyCodes code, const char *text)
{
    MQTTProperty *property = MQTTProperties_getProperty(properties, code);
    expect(property && property->value.data.len == (int)strlen(text)
               && memcmp(property->value.data.data, text, strlen(text)) == 0,
           "property %d is not \"%s\"", code, text);
}

/* The properties of a message, all of them, there and back. */
static void step_properties(void)
{
    static const char *pairs[][2] = {{"b", "1"}, {"a", "2"}, {"b", "1"}};
    MQTTClient screen = connected(topic("screen"), 1, 0, 0, NULL);
    MQTTClient press = connected(topic("press"), 1, 0, 0, NULL);

    MQTTProperties of_subscription = MQTTProperties_initializer;
    MQTTProperty property;
    property.identifier = MQTTPROPERTY_CODE_SUBSCRIPTION_IDENTIFIER;
    property.value.integer4 = 4711;
    MQTTProperties_add(&of_subscription, &property);
    MQTTResponse response = MQTTClient_subscribe5(screen, topic("t"), 2, NULL, &of_subscription);
    expect(response.reasonCode == MQTTREASONCODE_GRANTED_QOS_2, "SUBACK %d", response.reasonCode);
    MQTTResponse_free(response);

    MQTTClient_message message = MQTTClient_message_initializer;
    message.payload = "{}";
    message.payloadlen = 2;
    message.qos = 2;
    add_text(&message.properties, MQTTPROPERTY_CODE_CONTENT_TYPE, "application/json");
    add_text(&message.properties, MQTTPROPERTY_CODE_RESPONSE_TOPIC, "answers/here");
    add_text(&message.properties, MQTTPROPERTY_CODE_CORRELATION_DATA, "\x01\xFF request");
    property.identifier = MQTTPROPERTY_CODE_PAYLOAD_FORMAT_INDICATOR;
    property.value.byte = 1;
    MQTTProperties_add(&message.properties, &property);
    property.identifier = MQTTPROPERTY_CODE_MESSAGE_EXPIRY_INTERVAL;
    property.value.integer4 = 1000;
    MQTTProperties_add(&message.properties, &property);
    for (int i = 0; i < 3; i++)
        add_pair(&message.properties, pairs[i][0], pairs[i][1]);
    publish_message(press, topic("t"), &message);

    MQTTClient_message *got = receive(screen, topic("t"), "{}", 2, 0);
    MQTTProperties *back = &got->properties;
    expect_text(back, MQTTPROPERTY_CODE_CONTENT_TYPE, "application/json");
    expect_text(back, MQTTPROPERTY_CODE_RESPONSE_TOPIC, "answers/here");
    expect_text(back, MQTTPROPERTY_CODE_CORRELATION_DATA, "\x01\xFF request");
    expect(MQTTProperties_getNumericValue(back, MQTTPROPERTY_CODE_PAYLOAD_FORMAT_INDICATOR) == 1,
           "no Payload Format Indicator");
    int expiry = MQTTProperties_getNumericValue(back, MQTTPROPERTY_CODE_MESSAGE_EXPIRY_INTERVAL);
    expect(expiry > 900 && expiry <= 1000, "Message Expiry Interval %d", expiry);
    int identifier = MQTTProperties_getNumericValue(back, MQTTPROPERTY_CODE_SUBSCRIPTION_IDENTIFIER);
    expect(identifier == 4711, "Subscription Identifier %d", identifier);
    expect(MQTTProperties_propertyCount(back, MQTTPROPERTY_CODE_USER_PROPERTY) == 3, "User Properties are lost");
    for (int i = 0; i < 3; i++) {
        MQTTProperty *pair = MQTTProperties_getPropertyAt(back, MQTTPROPERTY_CODE_USER_PROPERTY, i);
        expect(pair && pair->value.data.len == 1 && pair->value.data.data[0] == pairs[i][0][0]
                   && pair->value.value.len == 1 && pair->value.value.data[0] == pairs[i][1][0],
               "User Property %d is another", i);
    }
    MQTTClient_freeMessage(&got);
    leave(screen);
    leave(press);
}

int main(int count, char **arguments)
{
    static const struct {
        const char *name;
        void (*tell)(void);
    } steps[] = {
        {"exchange", step_exchange}, {"retained", step_retained}, {"will", step_will}, {"die", step_die},
        {"leave", step_leave}, {"resume", step_resume}, {"properties", step_properties},
    };
    if (count != 5) {
        fprintf(stderr, "session_story PORT 3.1.1|5 STEP ID\n");
        return 2;
    }
    program = arguments[0];
    port = arguments[1];
    version = arguments[2];
    step = arguments[3];
    name = arguments[4];
    MQTTClient_init_options options = MQTTClient_init_options_initializer;
    MQTTClient_global_init(&options);
    for (size_t i = 0; i < sizeof steps / sizeof *steps; i++) {
        if (strcmp(step, steps[i].name) == 0) {
            steps[i].tell();
            return 0;
        }
    }
    fprintf(stderr, "no such step: %s\n", step);
    return 2;
}
