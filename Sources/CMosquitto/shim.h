// libmosquitto's client engine and its MQTT 5 property functions.
#include <mosquitto.h>
#include <mqtt_protocol.h>
