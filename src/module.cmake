# add_module(NAME n SOURCES ... [MAY_USE other modules] [LIBRARIES third-party targets])
#
# One static library per folder of src/. MAY_USE is the list of arrows this module may draw; an
# arrow that is not in the table below stops the configuration. tests/tidy checks the #include lines
# against the same table.
set(TANDEM_ARROWS
  "base:"
  "format:base"
  "store:base,format"
  "replication:base,format"
  "control:base,store,replication"
  "device:base"
  "rpc:base"
  "nbd:base"
  "backup:base,format"
  "ctl:base,backup,rpc"
  "inspect:base,format,store,device"
  "daemon:base,format,store,replication,control,device,rpc,nbd")

function(add_module)
  cmake_parse_arguments(M "" "NAME" "SOURCES;MAY_USE;LIBRARIES" ${ARGN})
  set(allowed "")
  foreach(row IN LISTS TANDEM_ARROWS)
    if(row MATCHES "^${M_NAME}:(.*)$")
      string(REPLACE "," ";" allowed "${CMAKE_MATCH_1}")
    endif()
  endforeach()
  add_library(tandem_${M_NAME} STATIC ${M_SOURCES})
  target_include_directories(tandem_${M_NAME} PUBLIC ${PROJECT_SOURCE_DIR}/include
                                              PRIVATE ${PROJECT_SOURCE_DIR}/src)
  target_link_libraries(tandem_${M_NAME} PUBLIC ${M_LIBRARIES})
  foreach(other IN LISTS M_MAY_USE)
    if(NOT other IN_LIST allowed)
      message(FATAL_ERROR "src/${M_NAME} may not use src/${other}: see the arrows in src/module.cmake")
    endif()
    target_link_libraries(tandem_${M_NAME} PUBLIC tandem_${other})
  endforeach()
endfunction()
